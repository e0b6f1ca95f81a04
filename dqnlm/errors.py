"""The error for mistakes of the user. The command line prints its message and exits with code 2."""


class UserError(Exception):
    """The mistake, its place, the nearest valid choice, and the correction: shown without a traceback."""
