"""From an option file to resolved options: ``_base_`` files merged, ``--force_yml`` applied, ``imports`` imported."""

from __future__ import annotations

import ast
import copy
import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import Key, Marks, OptionError, dotted
from .yaml_text import read_yaml, read_yaml_file

_PACKAGES = {"_arch": "archs", "_dataset": "data", "_loss": "losses", "_model": "models"}
"""Where BasicSR's plug-ins put their files, by the ending of the file's name."""


def load_options(path: str | os.PathLike[str], force: Iterable[str] = ()) -> tuple[dict[str, Any], Marks]:
    """Read an option file with the files it derives from, and override values.

    ``_base_`` names one file or several, relative to the file that names them. Sections are merged key by key; the
    deriving file wins over its bases, and a later base over an earlier one. A section set to ``~`` is removed; one
    that holds ``_delete_: true`` replaces the inherited section instead of being merged into it. ``imports`` of all
    the files are kept.

    Args:
        path: The option file.
        force: Overrides as on the command line: ``train:optim_g:lr=1e-4``. The value is YAML; the key may be new.

    Returns:
        The options as plain dicts; and where each of them was written, with notices on how.

    Raises:
        OptionError: If a file cannot be read, derives from itself, or an override makes no sense.
    """
    opt, marks = _load(Path(path), ())
    for entry in force:
        _force(opt, marks, entry)
    return opt, marks


def _load(path: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], Marks]:
    path = path.resolve()
    if path in chain:
        names = " → ".join(p.name for p in (*chain[chain.index(path) :], path))
        raise OptionError(f"_base_ goes round in a circle: {names}")
    own, own_marks = read_yaml_file(path)
    if not isinstance(own, dict):
        found = "it is empty" if own is None else f"it holds a {type(own).__name__}"
        raise OptionError(f"{own_marks.where(()) or path}: an option file must hold `key: value` lines, but {found}")
    own_imports = _resolve_imports(own, own_marks, path.parent)
    bases = own.pop("_base_", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise OptionError(f"{own_marks.label(('_base_',))}: must be the path of an option file, or a list of paths")
    opt: dict[str, Any] = {}
    marks = Marks()
    imports: list[str] = []
    for base in bases:
        base_path = path.parent / os.path.expanduser(base)
        if not base_path.is_file():
            raise OptionError(f"{own_marks.label(('_base_',))}: there is no file '{base}' beside {path.name}")
        base_opt, base_marks = _load(base_path, (*chain, path))
        marks.notices += base_marks.notices
        imports += base_opt.pop("imports", [])
        _merge(opt, base_opt, (), marks, base_marks)
    _merge(opt, own, (), marks, own_marks)
    marks.notices += own_marks.notices
    imports += own_imports
    if imports:
        opt["imports"] = list(dict.fromkeys(imports))
    return opt, marks


def _merge(into: dict[Any, Any], new: Mapping[Any, Any], key: Key, into_marks: Marks, new_marks: Marks) -> None:
    """Merge a section into another in place, the marks with it."""
    into_marks[key] = new_marks.where(key)
    for name, value in new.items():
        path = (*key, name)
        old = into.get(name)
        replaces = isinstance(value, dict) and value.get("_delete_") is True
        if isinstance(old, dict) and isinstance(value, dict) and not replaces:
            _merge(old, value, path, into_marks, new_marks)
            continue
        if name in into:
            into_marks.drop(path)
        if isinstance(old, dict) and value is None:
            del into[name]
            continue
        into[name] = copy.deepcopy(value)
        if replaces:
            del into[name]["_delete_"]
        into_marks.update({k: place for k, place in new_marks.items() if k[: len(path)] == path})


def _force(opt: dict[str, Any], marks: Marks, entry: str) -> None:
    name, equals, text = entry.partition("=")
    keys = tuple(part.strip() for part in name.split(":"))
    if not equals or not all(keys):
        raise OptionError(f"--force_yml {entry}: expected `section:key=value`, such as `train:ema_decay=0.999`")
    value, value_marks = read_yaml(text, f"--force_yml {name}")
    marks.notices += value_marks.notices
    section = opt
    for depth, part in enumerate(keys[:-1], start=1):
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise OptionError(f"--force_yml {entry}: {dotted(keys[:depth])} is not a section, but {section!r}")
    marks.drop(keys)
    marks[keys] = "--force_yml"
    if value is None and isinstance(section.get(keys[-1]), dict):
        del section[keys[-1]]
    else:
        section[keys[-1]] = value


def _import_entries(value: Any, marks: Marks) -> list[str]:
    entries = [value] if isinstance(value, str) else value or []
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise OptionError(f"{marks.label(('imports',))}: must be a list of module names or .py files")
    return entries


def _resolve_imports(opt: dict[str, Any], marks: Marks, folder: Path) -> list[str]:
    """Take ``imports`` out of one file's options, with the paths of .py files made absolute."""
    resolved = []
    for entry in _import_entries(opt.pop("imports", None), marks):
        if entry.endswith(".py"):
            beside, here = folder / os.path.expanduser(entry), Path(entry).resolve()
            if not (beside.is_file() or here.is_file()):
                raise OptionError(
                    f"{marks.label(('imports',))}: there is no file '{entry}', neither in {folder} nor in {Path.cwd()}"
                )
            entry = str((beside if beside.is_file() else here).resolve())
        resolved.append(entry)
    return resolved


def import_modules(opt: Mapping[str, Any], marks: Marks) -> None:
    """Import what ``imports`` names, so that users' classes are registered.

    A module is looked for on Python's path and in the working folder. A .py file is imported under its own name with
    its folder on the path, so that loader processes find its classes too. One with relative imports is imported as a
    member of the package that such files lie in with BasicSR, and its folder is searched after that package's own.

    Raises:
        OptionError: If one cannot be imported; the message says why and where.
    """
    for entry in _import_entries(opt.get("imports"), marks):
        is_file = entry.endswith(".py")
        folder = os.path.dirname(os.path.abspath(entry)) if is_file else os.getcwd()
        package = _package_of(Path(entry)) if is_file else None
        if folder not in sys.path:
            sys.path.append(folder)
        name = Path(entry).stem if is_file else entry
        try:
            if package is not None:
                name = f"{package}.{name}"
                search_path = importlib.import_module(package).__path__
                if folder not in search_path:
                    search_path.append(folder)
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:  # a user's module may raise anything; it is reported with its place
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = "" if where.filename.startswith("<frozen") else f" ({where.filename}:{where.lineno})"
            if is_file and "relative import" in str(error):
                endings = ", ".join(f"…{ending}.py" for ending in _PACKAGES)
                place += f". Name the file {endings}, as in BasicSR's folders, or name its module, as in package.{name}"
            raise OptionError(
                f"{marks.label(('imports',))}: '{entry}' could not be imported: {type(error).__name__}: {error}{place}"
            ) from error
        found = getattr(module, "__file__", None)
        if is_file and (found is None or not os.path.samefile(found, entry)):
            raise OptionError(
                f"{marks.label(('imports',))}: '{entry}' was not imported, because another module is named '{name}' "
                f"({found or 'built in'}). Rename the file."
            )


def _package_of(file: Path) -> str | None:
    """The package of ours that a file with relative imports is written for, by its name; None for any other file."""
    try:
        nodes = ast.walk(ast.parse(file.read_bytes()))
    except (OSError, SyntaxError, ValueError):
        return None  # the import says what is wrong
    if not any(isinstance(node, ast.ImportFrom) and node.level > 0 for node in nodes):
        return None
    return next((f"basicsr.{name}" for ending, name in _PACKAGES.items() if file.stem.endswith(ending)), None)
