"""The error for mistakes of the user. The command line prints its message and exits with code 2."""

import os
import sys
import traceback


class UserError(Exception):
    """The mistake, its place, the nearest valid choice, and the correction: shown without a traceback."""


def print_error(error: UserError, who: str = "") -> None:
    """Prints the message to stderr, after the name of the process where there are several.

    With HYDRA_FULL_ERROR=1, Hydra's own variable, the traceback of what caused it comes first.
    """
    if error.__cause__ is not None and os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error.__cause__)
    print(f"{who}error: {error}", file=sys.stderr)
