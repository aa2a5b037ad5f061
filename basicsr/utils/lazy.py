"""Members of a package that are imported from its modules on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_members(
    package: str, members: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Make the names, ``__getattr__`` and ``__dir__`` of a package, so that importing it imports none of its modules.

    Args:
        package: The package's ``__name__``.
        members: Module of the package → the names that the package offers from it.
    """
    module_of = {name: module for module, names in members.items() for name in names}

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return sorted(module_of), load, listed
