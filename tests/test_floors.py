"""Each package of the library imports only from those below it, also for type checkers alone."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "basicsr"
FLOORS = [
    {"utils", "version"},
    {"archs", "data", "losses", "metrics"},
    {"engine"},
    {"distill"},
    {"models"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
TOP = len(FLOORS)  # train, test, cli, commands …
MODULES = sorted(path for name in LEVEL for path in (PACKAGE / name).rglob("*.py"))


def imported(path, source):
    """The packages and modules of the library that a file imports from, as written anywhere in it."""
    package = ["basicsr", *path.relative_to(PACKAGE).parent.parts]
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{base}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {name[1] for name in parts if name[0] == "basicsr" and len(name) > 1}


def exists(name):
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_below_alone(path):
    own = path.relative_to(PACKAGE).parts[0]
    found = {name for name in imported(path, path.read_text(encoding="utf-8")) if exists(name)}
    above = {name for name in found if name != own and LEVEL.get(name, TOP) > LEVEL[own]}
    assert not above, f"basicsr/{own} is below {', '.join(sorted(above))}"


def test_every_package_has_a_floor():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages - {"commands"} <= LEVEL.keys()
    assert len(MODULES) > 100


@pytest.mark.parametrize(
    "source",
    [
        "import basicsr.models.sr_model",
        "from basicsr.models import build_model",
        "from basicsr import models",
        "from ..models.sr_model import SRModel",
        "from .. import models",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from basicsr.models.sr_model import SRModel",
        "def f():\n    import basicsr.models",
    ],
)
def test_every_way_of_importing_is_seen(source):
    assert imported(PACKAGE / "engine" / "x.py", source) == {"models"}
    assert imported(PACKAGE / "engine" / "compute" / "x.py", source.replace("..", "...")) == {"models"}
