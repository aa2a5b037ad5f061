"""Every requirement is imported, and everything that is imported is required."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE_OF = {"opencv-python-headless": "cv2", "pyyaml": "yaml", "scikit-image": "skimage"}
OPTIONAL = {"wandb"}  # extras, imported where they are used
PART_OF = {"annotated_types": "pydantic", "pydantic_core": "pydantic"}
THROUGH_TORCH = {"tensorboard"}  # torch.utils.tensorboard imports it


def imports(folder):
    """The modules that the files below a folder import, by the first part of their names."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module)
    return {name.split(".")[0] for name in names}


def required():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [re.match(r"[\w.-]+", line)[0] for line in lines if line]
    return {MODULE_OF.get(name, name) for name in names}


def test_what_the_package_imports_is_required():
    foreign = imports("basicsr") - sys.stdlib_module_names - {"basicsr"}
    assert {PART_OF.get(name, name) for name in foreign} - OPTIONAL <= required()


def test_every_requirement_is_imported():
    assert required() - THROUGH_TORCH <= imports("basicsr") | imports("scripts")
