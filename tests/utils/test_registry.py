import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from basicsr.utils.registry import ARCH_REGISTRY, Registry


def make(name, module):
    cls = type(name, (), {"__init__": lambda self: None})
    cls.__module__ = module
    return cls


def test_register_and_get():
    registry = Registry("thing")

    @registry.register()
    class One: ...

    registry.register(make("Two", "user"), suffix="extra")
    assert registry.get("One") is One
    assert "Two_extra" in registry
    assert registry.get("Two", suffix="extra").__name__ == "Two"
    assert registry.keys() == ["One", "Two_extra"]


@pytest.mark.parametrize("order", [("basicsr.archs.x", "user"), ("user", "basicsr.archs.x")])
def test_a_user_s_object_takes_precedence_in_any_order(order):
    registry = Registry("thing")
    objects = {module: make("Net", module) for module in order}
    for module in order:
        registry.register(objects[module])
    assert registry.get("Net") is objects["user"]
    assert registry.get("Net_basicsr") is objects["basicsr.archs.x"]


@pytest.mark.parametrize("modules", [("user_a", "user_b"), ("basicsr.archs.a", "basicsr.archs.b")])
def test_two_objects_of_one_origin_with_one_name(modules):
    registry = Registry("thing")
    registry.register(make("Net", modules[0]))
    with pytest.raises(KeyError, match=f"'Net' is registered twice: by {modules[0]} and by {modules[1]}"):
        registry.register(make("Net", modules[1]))


def test_a_file_imported_under_two_names_registers_once(tmp_path, monkeypatch):
    registry = Registry("thing")
    (tmp_path / "file.py").write_text("class Net:\n    pass\n")
    for name in ("file_as_main", "pkg.file"):
        spec = importlib.util.spec_from_file_location(name, tmp_path / "file.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        registry.register(module.Net)
    assert registry.keys() == ["Net"]


def test_an_unknown_name_is_explained():
    with pytest.raises(KeyError) as error:
        ARCH_REGISTRY.get("SwinIRR")
    message = str(error.value)
    assert "No object named 'SwinIRR' is registered as arch" in message
    assert "Did you mean 'SwinIR'" in message
    assert "EDSR" in message
    assert "basicsr/__init__.py" in message


def test_one_broken_member_hides_no_other(tmp_path):
    package = tmp_path / "somepkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "good_arch.py").write_text(
        "import somereg\n@somereg.R.register()\nclass Good:\n    def __init__(self): pass\n"
    )
    (package / "bad_arch.py").write_text("import a_package_that_is_not_there\n")
    (package / "other.py").write_text("raise RuntimeError('not a member')\n")
    (tmp_path / "somereg.py").write_text(
        "from basicsr.utils.registry import Registry\nR = Registry('thing', 'somepkg', '_arch')\n"
    )
    code = (
        "from somereg import R\nprint(R.get('Good').__name__)\n"
        "try:\n    R.get('Bad')\nexcept KeyError as e:\n    print(e)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Good\n")
    assert "Not importable: somepkg.bad_arch: ModuleNotFoundError" in result.stdout
    assert "a_package_that_is_not_there" in result.stdout


def test_import_basicsr_is_light():
    """Nothing heavy is imported by `import basicsr`, nor by looking at the registries."""
    code = (
        "import sys, basicsr, basicsr.utils, basicsr.utils.registry\n"
        "print([m for m in ('torch', 'cv2', 'numpy', 'yaml', 'pydantic') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
