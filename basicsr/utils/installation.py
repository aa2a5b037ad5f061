"""Which files of the imported package belong to another distribution.

PyPI's ``basicsr`` installs into a folder of the same name as ours: over our files, without a word. This module needs
nothing but Python's own library, so that it works where the package does not.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import site
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
OWN, OTHER = "basicsr-kd", "basicsr"
_REMEDY = f"pip uninstall {OTHER}, then pip install --force-reinstall --no-deps {OWN}"


@dataclass(frozen=True)
class Conflict:
    """Another distribution with our package's name.

    Attributes:
        distribution: Its name and version.
        package: The folder of the imported package.
        replaced: Files of ours in it that now are the other's.
        added: Files of the other's beside ours.
        elsewhere: The folder of the other's package, where that is another one and found first by other programs.
    """

    distribution: str
    package: Path
    replaced: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    elsewhere: Path | None = None

    def __str__(self) -> str:
        if self.replaced:
            return (
                f"{self.distribution} was installed over {OWN} in {self.package}: {len(self.replaced)} files of {OWN} "
                f"are replaced by its own ({_some(self.replaced)}), and neither works. To repair it: {_REMEDY}"
            )
        if self.added:
            return (
                f"{self.distribution} is installed in the same folder as {OWN}, {self.package}: {len(self.added)} of "
                f"the files belong to it ({_some(self.added)}) and are used as if they were ours. To remove them: "
                f"{_REMEDY}"
            )
        return (
            f"{self.distribution} is installed in {self.elsewhere}, and {OWN} runs from {self.package}: elsewhere, "
            f"`import basicsr` finds that one, which does not know our networks and recipes. To remove it: pip "
            f"uninstall {OTHER}"
        )


def find_conflict(package: Path = PACKAGE, path: list[str] | None = None) -> Conflict | None:
    """The other distribution that has files in our package's folder, or comes before it; None if there is none.

    Args:
        package: The folder of the imported package.
        path: Where installed distributions are looked for; ``sys.path`` when absent.
    """
    where = {} if path is None else {"path": path}
    own = {file for dist in importlib.metadata.distributions(name=OWN, **where) for file, _ in _files(dist)}
    for dist in importlib.metadata.distributions(name=OTHER, **where):
        title = f"{OTHER} {dist.version}"
        its = dict(_files(dist))
        here = {file: digest for file, digest in its.items() if file.is_relative_to(package)}
        held = [file for file, digest in here.items() if _has_digest(file, digest)]
        replaced = [str(file.relative_to(package)) for file in held if file in own]
        added = [str(file.relative_to(package)) for file in held if file not in own]
        if replaced or added:
            return Conflict(title, package, tuple(sorted(replaced)), tuple(sorted(added)))
        other = next((file.parent for file in its if file.parts[-2:] == ("basicsr", "__init__.py")), None)
        if other not in (None, package) and package.parent not in _site_folders():
            return Conflict(title, package, elsewhere=other)
    return None


def require_own_files() -> None:
    """Refuse to go on with files that another distribution has replaced.

    Raises:
        ImportError: If there are any; says whose they are and what to do.
    """
    if not (PACKAGE / "utils" / "options.py").is_file():  # the other's, beside our package of that name
        return
    conflict = find_conflict()
    if conflict is not None and conflict.replaced:
        raise ImportError(str(conflict))


def _files(dist: importlib.metadata.Distribution) -> Iterator[tuple[Path, str | None]]:
    """The Python and data files of a distribution's package, each with its digest as it was installed."""
    for file in dist.files or ():
        if file.parts[:1] == ("basicsr",) and file.suffix != ".pyc":
            digest = file.hash.value if file.hash is not None and file.hash.mode == "sha256" else None
            yield Path(str(dist.locate_file(file))).resolve(), digest


def _has_digest(file: Path, digest: str | None) -> bool:
    """Whether a file is as it was installed; what has no digest, empty files mostly, says nothing."""
    if digest is None or not file.is_file():
        return False
    content = file.read_bytes()
    found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return bool(content) and found == digest


def _site_folders() -> set[Path]:
    folders = [*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))]
    return {Path(folder).resolve() for folder in folders}


def _some(names: tuple[str, ...], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
