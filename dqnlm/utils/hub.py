"""Whether the Hugging Face Hub may be asked, and answers: one home for all that would download from it."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

PROBE_TIMEOUT_S = 3.0  # one short request costs less than the half minute of the retries of the Hub's clients
VARIABLES = ("DQNLM_OFFLINE", "HF_HUB_OFFLINE")  # that the user may set; `datasets` has one more
_OFF = ("", "0", "false", "no", "off")


def switched_off(*also: str) -> str | None:
    """The variable by which the user forbids it (`also`: further ones), as a reason; None where none is set."""
    names = (name for name in (*VARIABLES, *also) if os.environ.get(name, "").lower() not in _OFF)
    return next((f"{name} is set" for name in names), None)


def why_not(*also: str) -> str | None:
    """The reason for using local copies alone: `switched_off`, or no answer; None where there is none."""
    from huggingface_hub import constants

    return switched_off(*also) or _silent(constants.ENDPOINT)


@functools.cache
def _silent(endpoint: str) -> str | None:
    """Asked once in a process: a model has several files."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None  # it answers, if only to refuse this request
    except OSError as error:
        return f"{endpoint} does not answer ({error})"
    return None


@contextlib.contextmanager
def local_copies() -> Iterator[None]:
    """Turns the Hub off in its clients, which read their environment variables only when they are imported.

    `local_files_only` is not enough: the client then still asks the Hub for things of its own.
    """
    from huggingface_hub import constants

    places: list[Any] = [constants] + ([sys.modules["datasets"].config] if "datasets" in sys.modules else [])
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
