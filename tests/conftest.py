"""What holds for every test: Ctrl-C (SIGINT) acts as in a program that was started in a terminal."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A script that starts the tests in the background lets them ignore SIGINT, and their child processes inherit that.

    Runs in each worker of pytest-xdist too. An `exec` resets a handler to the default action but keeps "ignored", so this is
    enough for child processes.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
