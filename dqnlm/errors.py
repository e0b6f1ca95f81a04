"""The error for mistakes of the user. The command line prints its message and exits with code 2."""

import os
import sys
import traceback


class UserError(Exception):
    """The mistake, its place, the nearest valid choice, and the correction: shown without a traceback."""


def print_error(error: UserError) -> None:
    """Prints the message to stderr; with HYDRA_FULL_ERROR=1, Hydra's own variable, after the traceback of what caused it."""
    if error.__cause__ is not None and os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error.__cause__)
    print(f"error: {error}", file=sys.stderr)
