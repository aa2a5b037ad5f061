"""`imports:` of files with relative imports: they work as if they lay in the folders of BasicSR."""

import json
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import json, pickle, sys
from basicsr.utils.options.errors import Marks, OptionError
from basicsr.utils.options.files import import_modules, load_options
from basicsr.utils.options.registered import is_ours
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY
try:
    opt, marks = load_options("x.yml")
    import_modules(opt, marks)
    import_modules(opt, marks)  # again, as a check before the run does
except OptionError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
found = {}
for registry in (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY):
    for name in registry.keys():
        if name.startswith("My"):
            target = registry.get(name)
            assert pickle.loads(pickle.dumps(target)) is target
            found[name] = [target.__module__, is_ours(registry.name, {"type": name})]
print(json.dumps({"found": found, "others": [n for n in ARCH_REGISTRY.keys() if n == "Neighbour"]}))
"""

FILES = {
    "nets/my_arch.py": """
        from torch import nn
        from ..utils.registry import ARCH_REGISTRY
        from .arch_util import default_init_weights
        from .my_layers import Layer

        @ARCH_REGISTRY.register()
        class MyNet(nn.Module):
            layer = Layer
        """,
    "nets/my_layers.py": "class Layer:\n    from_beside = True\n",
    "nets/neighbour_arch.py": """
        from torch import nn
        from basicsr.utils.registry import ARCH_REGISTRY

        @ARCH_REGISTRY.register()
        class Neighbour(nn.Module):
            pass
        """,
    "my_loss.py": """
        from torch import nn
        from .loss_util import weighted_loss
        from basicsr.utils.registry import LOSS_REGISTRY

        @LOSS_REGISTRY.register()
        class MyLoss(nn.Module):
            pass
        """,
    "my_dataset.py": """
        from .paired_image_dataset import PairedImageDataset
        from ..utils.registry import DATASET_REGISTRY

        @DATASET_REGISTRY.register()
        class MyDataset(PairedImageDataset):
            pass
        """,
    "my_model.py": """
        from ..utils.registry import MODEL_REGISTRY
        from .sr_model import SRModel

        @MODEL_REGISTRY.register()
        class MyModel(SRModel):
            pass
        """,
    "plain_arch.py": """
        from torch import nn
        from basicsr.utils.registry import ARCH_REGISTRY

        @ARCH_REGISTRY.register()
        class MyPlain(nn.Module):
            pass
        """,
}


@pytest.fixture
def run(tmp_path):
    """Import files in a process of their own, since they become members of this package."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))

    def run(imports, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        (tmp_path / "x.yml").write_text(f"imports: [{', '.join(imports)}]\n")
        path = [p for p in sys.path if p]
        program = f"import sys; sys.path[:0] = {path!r}\n{PROGRAM}"
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_each_kind_of_file_is_a_member_of_its_package(run):
    result = run(["nets/my_arch.py", "my_loss.py", "my_dataset.py", "my_model.py", "plain_arch.py"])
    assert result["found"] == {
        "MyNet": ["basicsr.archs.my_arch", False],
        "MyLoss": ["basicsr.losses.my_loss", False],
        "MyDataset": ["basicsr.data.my_dataset", False],
        "MyModel": ["basicsr.models.my_model", False],
        "MyPlain": ["plain_arch", False],  # without relative imports all stays as it was
    }
    assert result["others"] == []  # what lies beside it was not asked for


def test_a_name_that_does_not_say_where_is_refused(run):
    error = run(["net.py"], net="from .arch_util import to_2tuple\n")["error"]
    assert error.startswith("imports (x.yml:1): ") and "_arch.py" in error and "package.net" in error


def test_a_file_that_does_without_them_keeps_its_name(run):
    text = """
        try:
            from .helpers import nothing
        except ImportError:
            from torch import nn
        from basicsr.utils.registry import ARCH_REGISTRY

        @ARCH_REGISTRY.register()
        class MyFallback(nn.Module):
            pass
        """
    assert run(["net.py"], net=text)["found"] == {"MyFallback": ["net", False]}


def test_a_name_of_ours_is_refused(run):
    error = run(["edsr_arch.py"], edsr_arch="from .arch_util import to_2tuple\n")["error"]
    assert "another module is named 'basicsr.archs.edsr_arch'" in error and "Rename the file" in error


def test_what_is_not_there_is_told_with_its_line(run):
    error = run(["bad_arch.py"], bad_arch="\nfrom .arch_util import no_such_name\n")["error"]
    assert "could not be imported: ImportError" in error and "bad_arch.py:2" in error
    assert "could not be imported: SyntaxError" in run(["bad_arch.py"], bad_arch="from . import (\n")["error"]
