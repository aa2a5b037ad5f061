"""What a run may change in its options when it goes on from a training state.

What does not touch what is trained is listed; what changes it takes consent, option by option; what the state cannot be
used with is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from basicsr.utils.options.complete import CompleteOptions, complete
from basicsr.utils.options.words import shown

ADVICE = "resume with the options of the run, or start a new run from its weights (path.pretrain_network_g)"


class Kind(Enum):
    """What it means that an option differs from that of the training state."""

    UNRELATED = "unrelated"
    FREE = "free"
    CONSENT = "consent"
    IMPOSSIBLE = "impossible"


TABLE: tuple[tuple[str, Kind, str], ...] = (
    ("name", Kind.UNRELATED, "the run's folder"),
    ("imports", Kind.FREE, "where a user's classes are"),
    ("num_gpu", Kind.FREE, "the log tells when the number of processes differs"),
    ("find_unused_parameters", Kind.FREE, "how gradients are exchanged"),
    ("dist_params*", Kind.FREE, "how gradients are exchanged"),
    ("logger*", Kind.FREE, "what is written, and how often"),
    ("val*", Kind.FREE, "what is measured"),
    ("datasets.val*", Kind.FREE, "what is measured"),
    ("datasets.train*.name", Kind.FREE, "a name in the log"),
    ("datasets.train*.num_worker_per_gpu", Kind.FREE, "samples depend on the seed and their position alone"),
    ("datasets.train*.prefetch_mode", Kind.FREE, "how batches arrive"),
    ("datasets.train*.num_prefetch_queue", Kind.FREE, "how batches arrive"),
    ("datasets.train*.pin_memory", Kind.FREE, "how batches arrive"),
    ("datasets.train*.persistent_workers", Kind.FREE, "how batches arrive"),
    ("datasets.train*.io_backend*", Kind.FREE, "how images are stored"),
    ("path.resume_state", Kind.UNRELATED, "what is resumed"),
    ("path.resume_changed", Kind.UNRELATED, "consent itself"),
    ("path.experiments_root", Kind.UNRELATED, "a folder"),
    ("path.results_root", Kind.UNRELATED, "a folder"),
    ("path.*_network_<trained>", Kind.FREE, "its weights are those of the training state"),
    ("path.strict_load_<trained>", Kind.FREE, "its weights are those of the training state"),
    ("path.param_key_<trained>", Kind.FREE, "its weights are those of the training state"),
    ("runtime.*.channels_last", Kind.FREE, "the same numbers but for the last bits"),
    ("runtime.*.compile", Kind.FREE, "the same numbers but for the last bits"),
    ("train.total_iter", Kind.FREE, "how long is trained; less than the state's iteration is refused apart"),
    ("train.max_bad_steps", Kind.FREE, "when the training gives up"),
    ("train.kd_opt.*.log_grad", Kind.FREE, "what is logged"),
    ("network_<trained>.type", Kind.IMPOSSIBLE, "its weights are of the other network"),
    ("train.optim_*.type", Kind.IMPOSSIBLE, "its state is of the other optimiser"),
    ("train.scheduler.type", Kind.IMPOSSIBLE, "its state is of the other schedule"),
    ("*", Kind.CONSENT, "it may change what is trained"),
)
"""Patterns of dotted names, in order: the first that fits decides. ``<trained>`` stands for a network whose weights the
training state has."""


@dataclass(frozen=True)
class Change:
    """An option that differs from that of the training state.

    Attributes:
        name: Its dotted name.
        old: The state's value in words.
        new: The value in words.
        kind: What it means.
    """

    name: str
    old: str
    new: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name} {self.old} → {self.new}"


@dataclass(frozen=True)
class Changes:
    """All options that differ from those of a training state; none where the state does not hold its options.

    Attributes:
        items: What differs.
        consented: The options that may differ: names, each of which includes what is below it.
    """

    items: tuple[Change, ...]
    consented: Collection[str]

    @classmethod
    def since(cls, state: Mapping[str, Any], options: Mapping[str, Any], files: Mapping[str, str]) -> Changes:
        """Compare options with those of a training state.

        A file that an option names is compared by its content: one that was moved is listed, and one that was replaced
        has changed, although its name has not.

        Args:
            state: The training state.
            options: The options as they were read.
            files: The hashes of the files that they name, see :func:`~.identity.hashes_of_files`.
        """
        consented = (options.get("path") or {}).get("resume_changed") or []
        if not state.get("options"):
            return cls((), consented)
        trained = {
            match[1] for name in state.get("networks", []) if (match := re.fullmatch(r"net_(.+)_\d+\.pth", name))
        }
        ignored = (options.get("path") or {}).get("ignore_resume_networks") or []
        trained -= {name.removeprefix("network_") for name in ignored}
        old, new = complete([state["options"], options])
        different = [name for name in {**old.values, **new.values} if not _same(name, old, new)]
        names = dict.fromkeys(_outermost(name, old.values, new.values) for name in different)
        items = [Change(n, _value(n, old.values), _value(n, new.values), kind_of(n, trained)) for n in names]
        saved = state.get("files", {})
        known = saved.keys() & files.keys()
        moved = {name for name in known if saved[name] == files[name]}
        items = [replace(item, kind=Kind.FREE) if item.name in moved else item for item in items]
        replaced = sorted(known - moved - set(names))
        items += [Change(n, f"SHA-256 {saved[n][:12]}…", f"{files[n][:12]}…", kind_of(n, trained)) for n in replaced]
        return cls(tuple(items), consented)

    def of(self, kind: Kind) -> list[Change]:
        """Those of one kind."""
        return [change for change in self.items if change.kind is kind]

    @property
    def taken(self) -> list[Change]:
        """Those that change what is trained, with consent."""
        return [change for change in self.of(Kind.CONSENT) if self._is_consented(change)]

    def require_possible(self, state: Mapping[str, Any], total_iter: int) -> None:
        """Refuse what the training state cannot be used with.

        Raises:
            ValueError: Naming the options and both values.
        """
        if total_iter < state["iter"]:
            raise ValueError(
                f"train.total_iter is {total_iter}, and the training state is of iteration {state['iter']}: there is "
                f"nothing left to train. Raise it, or continue from an earlier state (path.resume_state)"
            )
        impossible = self.of(Kind.IMPOSSIBLE)
        if impossible:
            raise ValueError(f"the training state cannot be continued from with {_list(impossible)}; {ADVICE}")

    def require_consent(self) -> None:
        """Refuse what changes the training, unless ``path.resume_changed`` names it.

        Raises:
            ValueError: Naming the options and both values.
        """
        open_ = [change for change in self.of(Kind.CONSENT) if not self._is_consented(change)]
        if open_:
            names = ", ".join([*self.consented, *(change.name for change in open_)])
            raise ValueError(
                f"the training state was saved with other options, by which something else was trained: "
                f"{_list(open_)}. Resume with the options of the run, or consent to these changes by name: "
                f"--force_yml 'path:resume_changed=[{names}]'"
            )

    def _is_consented(self, change: Change) -> bool:
        return any(change.name == name or change.name.startswith(f"{name}.") for name in self.consented)

    def notices(self) -> list[str]:
        """Sentences for the log."""
        sentences = []
        if self.of(Kind.FREE):
            sentences.append(f"Options that differ from those of the training state: {_list(self.of(Kind.FREE))}.")
        if self.taken:
            sentences.append(f"Changed with consent (path.resume_changed): {_list(self.taken)}.")
        return sentences

    def explain(self) -> str:
        """The end of a sentence about a failure that the changes may be the reason for; empty where there are none."""
        changes = [change for change in self.items if change.kind in (Kind.CONSENT, Kind.IMPOSSIBLE)]
        return f" (options that differ from those of the training state: {_list(changes)})" if changes else ""


def kind_of(name: str, trained: Collection[str]) -> Kind:
    """What it means that an option differs.

    Args:
        name: Its dotted name.
        trained: The suffixes of the networks whose weights the training state has.
    """
    for pattern, kind, _ in TABLE:
        for suffix in trained if "<trained>" in pattern else ("",):
            if fnmatchcase(name, pattern.replace("<trained>", suffix)):
                return kind
    raise AssertionError("the last pattern fits everything")


def _same(name: str, old: CompleteOptions, new: CompleteOptions) -> bool:
    if name not in old.values or name not in new.values:
        return name in old.defaults | new.defaults
    one, other = old.values[name], new.values[name]
    if "dataroot" in name or "pretrain_network" in name:
        one, other = _real_paths(one), _real_paths(other)
    return one == other and (type(one) is bool) == (type(other) is bool)


def _real_paths(value: Any) -> Any:
    """A path, or a list of paths, as it really is."""
    if isinstance(value, list):
        return [_real_paths(item) for item in value]
    return os.path.realpath(os.path.expanduser(value)) if isinstance(value, str) else value


def _outermost(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The section that only one side has, where an option is in one that names a class; else the option."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        section = ".".join(parts[:end])
        present = [any(key == section or key.startswith(f"{section}.") for key in side) for side in (old, new)]
        if not all(present) and f"{section}.type" in {**old, **new}:
            return section
    return name


def _value(name: str, values: Mapping[str, Any]) -> str:
    if name in values:
        value = values[name]
        return f"'{value}'" if isinstance(value, str) else str(shown(value))  # two paths may differ at their end
    if any(key.startswith(f"{name}.") for key in values):
        return str(values.get(f"{name}.type") or "a section")
    return "absent"


def _list(changes: list[Change]) -> str:
    return ", ".join(map(str, changes))
