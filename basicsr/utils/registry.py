"""Registries map the names in option files to classes and functions.

The package's own members register themselves when their file is imported, and the files are imported the first
time a name is looked up. A user's module registers by being imported (``imports:`` in an option file).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]


class Registry:
    """A mapping from names to registered objects, filled on demand.

    Args:
        name: What is registered, for messages: ``arch``, ``loss`` …
        package: The package whose member files register objects of this kind.
        file_suffix: Only files whose name ends in this are imported by a look-up (``_arch``); '' for all.

    A user's object takes precedence over one of ours with the same name, which stays reachable as
    ``<name>_basicsr``. Two users' objects with one name are an error.
    """

    def __init__(self, name: str, package: str = "", file_suffix: str = "") -> None:
        self._name = name
        self._package = package
        self._file_suffix = file_suffix
        self._objects: dict[str, Any] = {}
        self._imported = not package
        self.import_failures: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self._name

    def register(self, obj: Any = None, suffix: str | None = None) -> Any:
        """Register an object under its ``__name__``; use as ``@R.register()`` or ``R.register(obj)``.

        Args:
            obj: The class or function, or None when used as a decorator.
            suffix: Appended to the name as ``<name>_<suffix>``.

        Raises:
            KeyError: If another module has registered this name.
        """
        if obj is None:

            def decorate(target: Any) -> Any:
                self._add(target, suffix)
                return target

            return decorate
        self._add(obj, suffix)
        return obj

    def _add(self, obj: Any, suffix: str | None) -> None:
        name = obj.__name__ if suffix is None else f"{obj.__name__}_{suffix}"
        known = self._objects.get(name)
        if known is None or _same_source(known, obj):
            self._objects[name] = obj
        elif belongs_to_package(obj) and not belongs_to_package(known):
            self._objects[f"{name}_basicsr"] = obj
        elif belongs_to_package(known) and not belongs_to_package(obj):
            self._objects[f"{name}_basicsr"] = known
            self._objects[name] = obj
        else:
            raise KeyError(
                f"the {self._name} name '{name}' is registered twice: by {known.__module__} and by {obj.__module__}. "
                f"Rename one of them, or register it with a suffix."
            )

    def get(self, name: str, suffix: str = "basicsr") -> Any:
        """The object registered as ``name``, or else as ``<name>_<suffix>``.

        Raises:
            KeyError: If there is none. The message names the imported package, what is registered, the nearest
                name, and the member files that failed to import and why.
        """
        if name not in self._objects:
            self._import_members()
        for candidate in (name, f"{name}_{suffix}"):
            if candidate in self._objects:
                return self._objects[candidate]
        raise KeyError(self._not_found(name))

    def __contains__(self, name: str) -> bool:
        if name not in self._objects:
            self._import_members()
        return name in self._objects

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._import_members()
        return iter(self._objects.items())

    def keys(self) -> list[str]:
        """All registered names, sorted, the package's own members imported first."""
        self._import_members()
        return sorted(self._objects)

    def _import_members(self) -> None:
        if self._imported:
            return
        self._imported = True
        package = importlib.import_module(self._package)
        for member in pkgutil.iter_modules([str(Path(package.__file__).parent)]):  # not folders of users' files
            if member.name.endswith(self._file_suffix):
                full_name = f"{self._package}.{member.name}"
                try:
                    importlib.import_module(full_name)
                except Exception as error:  # one broken member must not hide the others; reported by _not_found
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    self.import_failures[full_name] = (
                        f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
                    )

    def _not_found(self, name: str) -> str:
        import basicsr

        known = self.keys()
        lines = [f"No object named '{name}' is registered as {self._name}."]
        nearest = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        if nearest:
            lines.append(f"Did you mean {' or '.join(repr(n) for n in nearest)}?")
        lines.append(f"Registered: {', '.join(known) if known else 'nothing'}.")
        lines.append(f"The imported basicsr is {basicsr.__file__} (version {basicsr.__version__}).")
        lines += [f"Not importable: {module}: {why}" for module, why in self.import_failures.items()]
        lines.append("An object of your own is registered by naming its module under `imports:` in the option file.")
        return " ".join(lines)


def belongs_to_package(obj: Any) -> bool:
    """Whether a class or function is of this package, and not of a user's file that was imported as a part of it."""
    if obj.__module__.partition(".")[0] != "basicsr":
        return False
    file = getattr(sys.modules.get(obj.__module__), "__file__", None)
    return file is None or Path(file).is_relative_to(_PACKAGE)


def _same_source(known: Any, obj: Any) -> bool:
    """True if the two are one definition, met again because its file was imported under a second name."""

    def source(o: Any) -> tuple[str | None, str]:
        return getattr(sys.modules.get(o.__module__), "__file__", None), o.__qualname__

    return known is obj or (source(known)[0] is not None and source(known) == source(obj))


DATASET_REGISTRY = Registry("dataset", "basicsr.data", "_dataset")
DEGRADATION_REGISTRY = Registry("degradation", "basicsr.data", "_degradations")
ARCH_REGISTRY = Registry("arch", "basicsr.archs", "_arch")
MODEL_REGISTRY = Registry("model", "basicsr.models", "_model")
LOSS_REGISTRY = Registry("loss", "basicsr.losses", "_loss")
METRIC_REGISTRY = Registry("metric", "basicsr.metrics")
KD_REGISTRY = Registry("distillation term", "basicsr.distill")

REGISTRIES = {
    registry.name: registry
    for registry in (
        ARCH_REGISTRY,
        DATASET_REGISTRY,
        DEGRADATION_REGISTRY,
        MODEL_REGISTRY,
        LOSS_REGISTRY,
        METRIC_REGISTRY,
        KD_REGISTRY,
    )
}
"""All of them, by what they hold."""
