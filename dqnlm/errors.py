"""The one error a user can cause. Raised with the whole message; the command line prints it and exits with code 2."""


class UserError(Exception):
    """What is wrong, where, the nearest valid choice, and what to do, in plain words: shown without a traceback."""
