"""What train.py and test.py have in common when they are run as programs: exit codes and plain errors."""

from __future__ import annotations

import sys
from collections.abc import Callable

from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.logger import write_to_log_file
from basicsr.utils.options import OptionError
from basicsr.utils.paths import default_root
from basicsr.utils.rendezvous import LaunchError

WRONG_OPTIONS = 2


def launch(pipeline: Callable[[str], None]) -> None:
    """Run a pipeline; what the user can mend is told in sentences, without a traceback.

    Exit codes are listed in docs/resume.md.

    Args:
        pipeline: ``train_pipeline`` or ``test_pipeline``.
    """
    try:
        pipeline(default_root())
    except OptionError as error:
        if get_dist_info()[0] == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(WRONG_OPTIONS)
    except (ValueError, KeyError, OSError, ImportError, FloatingPointError) as error:
        # The kinds that our own checks raise. The traceback goes to the log, for the cases that are bugs after all.
        if not write_to_log_file("The run ended with an error.", error):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {text}\n(The traceback is in the run's log file.)", file=sys.stderr)
        sys.exit(1)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted; nothing had to be saved.", file=sys.stderr)
        sys.exit(130)
