"""What train.py and test.py have in common when they are run as programs: exit codes and plain errors."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import basicsr
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.labelled import sentence_of
from basicsr.utils.logger import write_to_log_file
from basicsr.utils.options import OptionError
from basicsr.utils.paths import default_root
from basicsr.utils.rendezvous import LaunchError

NOT_STARTED = 2
REFUSED = "The run did not start: nothing was written."


@contextmanager
def starting() -> Iterator[None]:
    """The part of a run before anything is written: errors are marked as the refusal of its start."""
    try:
        yield
    except Exception as error:
        error.__notes__ = [*getattr(error, "__notes__", []), REFUSED]  # add_note is Python 3.11's
        raise


def launch(pipeline: Callable[[str], None]) -> None:
    """Run a pipeline; print errors that the user can mend as sentences, without a traceback.

    Exit codes are listed in docs/resume.md.

    Args:
        pipeline: ``train_pipeline`` or ``test_pipeline``.
    """
    try:
        pipeline(default_root())
    except OptionError as error:
        if get_dist_info()[0] == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(NOT_STARTED)
    except (ValueError, KeyError, OSError, ImportError, FloatingPointError) as error:
        # The kinds that our own checks raise. The traceback goes to the log, for the cases that are bugs after all.
        if REFUSED in getattr(error, "__notes__", ()):
            if not is_own_refusal(error):
                traceback.print_exception(error)
            rank, world = get_dist_info()
            where = f" (rank {rank})" if world > 1 else ""
            print(f"error{where}: {sentence_of(error)}\n({REFUSED})", file=sys.stderr)
            sys.exit(NOT_STARTED)
        if not write_to_log_file("The run ended with an error.", error):
            raise
        print(f"error: {sentence_of(error)}\n(The traceback is in the run's log file.)", file=sys.stderr)
        sys.exit(1)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted; nothing had to be saved.", file=sys.stderr)
        sys.exit(130)


def is_own_refusal(error: BaseException) -> bool:
    """Whether code of this package has raised an error, with a sentence: others, such as a plug-in's, need their
    traceback to be understood."""
    while error.__cause__ is not None and sentence_of(error).endswith(sentence_of(error.__cause__)):
        error = error.__cause__  # it was only given the name of an option
    last = traceback.extract_tb(error.__traceback__)[-1:]
    ours = all(Path(frame.filename).is_relative_to(Path(basicsr.__file__).parent) for frame in last)
    return ours and " " in sentence_of(error)
