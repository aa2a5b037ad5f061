"""``basicsr check``: whether the runs that option files describe can start."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="option files, to train or to test with")
    parser.add_argument(
        "--options-only", action="store_true", help="check the files alone: data and weights need not be there"
    )
    parser.add_argument("--force_yml", nargs="+", action="extend", default=[], metavar="KEY=VALUE")


def run(args: argparse.Namespace) -> int:
    """Check option files, each by itself: up to where it would write its first file, a run starts."""
    import time
    import traceback

    from basicsr.engine.run.launch import is_own_refusal
    from basicsr.utils.labelled import sentence_of
    from basicsr.utils.options import OptionError, read_options

    failed = 0
    for file in args.files:
        begin = time.perf_counter()
        try:
            if args.options_only:
                _, notices = read_options(file, args.force_yml)
            else:
                notices = start_dry(file, args.force_yml)
        except OptionError as error:
            failed += 1
            print(f"{file}: WRONG\n{error}")
        except Exception as error:
            failed += 1
            if not is_own_refusal(error):
                traceback.print_exception(error)
            print(f"{file}: WRONG\n{sentence_of(error)}")
        else:
            print(f"{file}: ok ({time.perf_counter() - begin:.1f} s)")
            for notice in notices:
                print(f"  note: {notice}")
    return 1 if failed else 0


def start_dry(file: str, force: list[str]) -> list[str]:
    """Start the run of an option file, in one process, up to where it would write its first file.

    Args:
        file: The option file.
        force: Overrides, as for ``--force_yml``.

    Returns:
        What it warns of.
    """
    from basicsr.start import build_test, build_training
    from basicsr.utils.held_log import hold_log
    from basicsr.utils.options import parse_options
    from basicsr.utils.paths import default_root

    forced = ["--force_yml", *force] if force else []
    with hold_log(silent=True) as log:
        opt, args = parse_options(default_root(), None, ["-opt", str(file), "--launcher", "none", *forced])
        opt["root_path"] = default_root()
        opt["num_gpu"] = min(opt["num_gpu"], 1)  # on several GPUs, a run has a process for each
        if opt["is_train"]:
            build_training(opt, args.notices, args.record.options)
        else:
            build_test(opt, args.notices)
        return log.warnings
