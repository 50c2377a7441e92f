"""The commands: parse, call one function, print.

Exit 0: done. 2: the user's input is wrong, one line says what, where and how to mend it. 1: our
fault; ``--debug`` shows the traceback. Heavy libraries are imported inside the commands.
"""

import sys
import traceback
import warnings
from collections.abc import Sequence

from omnisurv import __version__, console
from omnisurv.cli import cohorts, models, results, risks  # noqa: F401  (the order in --help)
from omnisurv.cli.application import app
from omnisurv.errors import InputError, OmnisurvError

__all__ = ["app", "main", "run_command"]


def main(words: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    sys.exit(run_command(sys.argv[1:] if words is None else words))


def run_command(words: Sequence[str]) -> int:
    """Run a command; return 0 if it is done, 2 if the input is wrong, 1 if we are."""
    debug = "--debug" in words
    if list(words) == ["--version"]:
        console.say(__version__)
        return 0
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            code = app(list(words) or ["--help"], prog_name="omnisurv", standalone_mode=False)
        if code == 130:
            console.complain("stopped; the same command goes on where it was")
        return code if isinstance(code, int) else 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> int:
    """Print what went wrong as one line; return the exit code."""
    if hasattr(error, "format_message"):  # how the command line itself was written
        console.complain(f"{error.format_message()} See omnisurv --help.")
        return 2
    if isinstance(error, InputError):
        console.complain(str(error))
        return 2
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        console.complain(f"{where}{error.strerror or error}; check the path and the disk")
        return 2
    if isinstance(error, OmnisurvError):
        console.complain(str(error))
    else:
        console.complain(
            f"omnisurv {__version__} failed with {type(error).__name__}: {error}. This is our "
            "fault: please report it with the output of the same command with --debug."
        )
    return 1
