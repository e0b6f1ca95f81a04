"""Downloads one file from a fixed address and accepts it only if its sha256 is the expected one."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.request

_CHUNK_BYTES = 1 << 16


class DownloadError(Exception):
    """Reason for a failed download, as half a sentence."""


def download(url: str, sha256: str, size: int, timeout_s: float, total_s: float = 60.0) -> bytes:
    """Downloads the bytes at an address and verifies their length and sha256.

    Args:
        url: http or https.
        sha256: expected, hex.
        size: expected, bytes; no more than this is read.
        timeout_s: longest wait for the connection and for each part of the answer, seconds.
        total_s: longest duration of all of it, seconds.

    Raises:
        DownloadError: no connection, an HTTP error, a broken-off or slow transfer, other bytes than expected.
    """
    try:
        data = _receive(url, size, timeout_s, time.monotonic() + total_s)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{type(error).__name__}: {error}") from error
    if len(data) != size:
        raise DownloadError(f"the transfer gave {len(data):,} bytes of {size:,}")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DownloadError(f"the sha256 is {found}, expected {sha256}")
    return data


def _receive(url: str, size: int, timeout_s: float, deadline: float) -> bytes:
    """Reads at most `size + 1` bytes, so that a longer answer is noticed without reading all of it."""
    data = bytearray()
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        while len(data) <= size and (chunk := answer.read1(_CHUNK_BYTES)):
            data += chunk
            if time.monotonic() > deadline:
                raise TimeoutError("too slow")
    return bytes(data[: size + 1])
