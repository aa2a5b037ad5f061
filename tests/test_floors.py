"""docs/architecture.md agrees with the package: its floors with the imports, its rooms and homes with the files."""

import ast
import graphlib
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from basicsr.utils import registry

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "basicsr"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows(heading):
    """The rows of the table below a heading, as lists of cells."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[1:]]


def quoted(text):
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def is_path(text):
    return re.fullmatch(r"[\w/.]+(/|\.py|\.md)", text) is not None


FLOORS = {
    int(floor): [name.removesuffix("/").removesuffix(".py") for name in quoted(names)]
    for floor, names, _ in rows("Floors")
}
LEVEL = {name: floor for floor, names in FLOORS.items() for name in names}
TOP = max(FLOORS)
MODULES = sorted(PACKAGE.rglob("*.py"))
HOMES = {what: (file, how) for what, file, how, _, _ in rows("Where to put a new thing")}


def own_name(path):
    """The part of the package that a file belongs to, as the floors call it."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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
def test_a_module_imports_from_its_floor_and_below(path):
    own = own_name(path)
    if own == "__init__":
        assert imported(path, path.read_text(encoding="utf-8")) <= {"version"}, "import basicsr imports nothing heavy"
        return
    found = {name for name in imported(path, path.read_text(encoding="utf-8")) if exists(name)}
    above = {name for name in found if name != own and LEVEL[name] > LEVEL[own]}
    assert not above, f"basicsr/{own} is below {', '.join(sorted(above))}"


def test_no_circle_of_packages():
    graph = {}
    for path in MODULES:
        own = own_name(path)
        found = {name for name in imported(path, path.read_text(encoding="utf-8")) if exists(name)}
        graph.setdefault(own, set()).update(found - {own})
    graphlib.TopologicalSorter(graph).prepare()


def test_every_part_of_the_package_has_one_floor():
    parts = {own_name(path) for path in MODULES} - {"__init__"}
    named = [name for names in FLOORS.values() for name in names]
    assert sorted(named) == sorted(parts)
    assert sorted(FLOORS) == list(range(1, TOP + 1))


def test_every_package_within_a_package_is_a_room():
    packages = {path.parent.relative_to(PACKAGE).as_posix() + "/" for path in PACKAGE.glob("*/*/__init__.py")}
    assert packages <= set(quoted(PAGE))


def test_every_path_on_the_page_exists():
    patterns = [name.replace("<name>", "*") for file, _ in HOMES.values() for name in quoted(file) if "<name>" in name]
    assert all(list(PACKAGE.glob(pattern)) for pattern in patterns)
    for name in filter(is_path, quoted(PAGE)):
        root = ROOT if name.startswith(("basicsr/", "tests/", "docs/", "options/", "scripts/", "README")) else PACKAGE
        # The home of things of which there is none yet is a file that would be found.
        assert (root / name).exists() or any(fnmatch(name, pattern) for pattern in patterns), name


@pytest.mark.parametrize("what", [what for what, (_, how) in HOMES.items() if "REGISTRY" in how])
def test_registered_classes_are_where_the_page_says(what):
    file, how = HOMES[what]
    (name,) = re.findall(r"@(\w+)\.register\(\)", how)
    (pattern,) = quoted(file)
    known = getattr(registry, name)
    modules = [target.__module__ for _, target in known if target.__module__.startswith("basicsr.")]
    files = {module.removeprefix("basicsr.").replace(".", "/") + ".py" for module in modules}
    assert files
    if "<name>" in pattern:
        assert {file for file in files if not fnmatch(file, pattern.replace("<name>", "*"))} == set()
    else:
        assert fnmatch(pattern, f"{known._package.removeprefix('basicsr.')}/*{known._file_suffix}.py"), "is imported"


def test_names_that_the_page_sends_to_exist():
    from basicsr.cli import COMMANDS
    from basicsr.data.storage import ImageStorage
    from basicsr.models.lr_scheduler import find_scheduler
    from basicsr.models.optimizer import find_optimizer

    assert all(callable(found) for found in (ImageStorage, find_scheduler, find_optimizer))
    assert all((PACKAGE / "commands" / f"{module}.py").is_file() for module, _ in COMMANDS.values())


def test_links_lead_to_files():
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), f"docs/architecture.md links to {target}, which does not exist"


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
