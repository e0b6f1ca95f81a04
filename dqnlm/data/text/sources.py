"""Where a text comes from: the pinned tiny Shakespeare, a file, or the grammar that comes with the program.

A text from the Hugging Face Hub: `dqnlm.data.hub`.
"""

from __future__ import annotations

import os
from pathlib import Path

from dqnlm.data.text import bundled as grammar
from dqnlm.data.text.download import DownloadError, download
from dqnlm.data.text.reading import TextSource, read_text, sha256_of
from dqnlm.errors import UserError
from dqnlm.utils.files import write_bytes_atomic

TINY_SHAKESPEARE_FILE = "tinyshakespeare.txt"
TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINY_SHAKESPEARE_BYTES = 1_115_394
TINY_SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/"
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
)
DOWNLOAD_TIMEOUT_S = 5.0


def tiny_shakespeare(
    *, path: str | None, bundled_fallback: bool, bundled_characters: int, bundled_seed: int
) -> TextSource:
    """Tiny Shakespeare from `path`, $DQNLM_DATA_DIR, the user's cache, or a download; else the bundled corpus.

    Every copy is compared with the pinned sha256. DQNLM_OFFLINE=1 skips the download.

    Args:
        path: the file; None looks in the places above. A given file is used or an error, never passed over.
        bundled_fallback: whether the bundled corpus may stand in; its `notes` then say why, place by place.
        bundled_characters: its length.
        bundled_seed: its seed.

    Raises:
        UserError: a file found is another text, `path` is missing, or nothing was found and nothing may stand in.
    """
    if path is not None:
        return _pinned(Path(path).expanduser(), "data.path")
    failures: list[str] = []
    for place, setting, absent in _local_places():
        if place is not None and place.is_file():
            return _pinned(place, setting)
        failures.append(absent)
    source = _downloaded(failures)
    if source is not None:
        return source
    if not bundled_fallback:
        raise UserError(
            "tiny Shakespeare was not found, and data.bundled_fallback=false forbids the bundled corpus:\n"
            + "\n".join(f"  - {failure}" for failure in failures)
            + f"\nFetch {TINY_SHAKESPEARE_URL} and name it with data.path=FILE, put it as {TINY_SHAKESPEARE_FILE} into "
            "$DQNLM_DATA_DIR, or allow the bundled corpus with data.bundled_fallback=true."
        )
    stand_in = bundled(characters=bundled_characters, seed=bundled_seed)
    stand_in.notes.append("Tiny Shakespeare was not found; the bundled corpus stands in for it.")
    stand_in.notes.extend(failures)
    return stand_in


def text_file(*, path: str | None) -> TextSource:
    """Any UTF-8 file.

    Raises:
        UserError: no path, no such file, a folder, an empty file, bytes that are no UTF-8 (with their place).
    """
    if path is None:
        raise UserError("data=text_file needs a file: add data.path=FILE.")
    text, notes = read_text(path, "data.path")
    file = Path(path).expanduser().absolute()
    return TextSource(text=text, name=file.name, origin=str(file), sha256=sha256_of(text), notes=notes)


def bundled(*, characters: int, seed: int) -> TextSource:
    """Verse plays written by the grammar of `dqnlm.data.text.bundled`.

    Raises:
        UserError: `characters` is below 1, or `seed` below 0 (Python's generator takes -1 for 1).
    """
    if characters < 1:
        raise UserError(f"data.characters (data.bundled_characters) is {characters}; it must be at least 1.")
    if seed < 0:
        raise UserError(f"data.seed (data.bundled_seed) is {seed}; it must be at least 0.")
    text = grammar.write_plays(characters, seed)
    origin = f"grammar of dqnlm, {characters:,} characters, seed {seed}"
    return TextSource(text=text, name="bundled plays", origin=origin, sha256=sha256_of(text), bundled=True)


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/dqnlm`, or `~/.cache/dqnlm`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dqnlm"


def _local_places() -> list[tuple[Path | None, str, str]]:
    """(file, what a message calls it, what to say when it is absent), in the order they are looked at."""
    folder = os.environ.get("DQNLM_DATA_DIR")
    shared = Path(folder).expanduser() / TINY_SHAKESPEARE_FILE if folder else None
    cached = cache_folder() / TINY_SHAKESPEARE_FILE
    return [
        (shared, "$DQNLM_DATA_DIR", f"$DQNLM_DATA_DIR: no file {shared}" if shared else "$DQNLM_DATA_DIR is not set"),
        (cached, "the cache", f"the cache: no file {cached}"),
    ]


def _pinned(file: Path, setting: str) -> TextSource:
    """A local copy, or UserError where it is another text: a wrong copy is never used under this name."""
    text, notes = read_text(file, setting)
    found = sha256_of(text)
    if found != TINY_SHAKESPEARE_SHA256:
        advice = (
            f"Train on another text with data=text_file data.path={file}."
            if setting == "data.path"
            else f"Delete {file}, or fetch it anew from {TINY_SHAKESPEARE_URL}."
        )
        raise UserError(
            f"{setting}: {file} is not tiny Shakespeare: {len(text):,} characters with sha256 {found}, expected "
            f"{TINY_SHAKESPEARE_BYTES:,} with {TINY_SHAKESPEARE_SHA256}. {advice}"
        )
    return TextSource(text=text, name="tiny Shakespeare", origin=str(file.absolute()), sha256=found, notes=notes)


def _downloaded(failures: list[str]) -> TextSource | None:
    """The download, kept in the cache; None where there is none, after adding the reason to `failures`."""
    if os.environ.get("DQNLM_OFFLINE", "") not in ("", "0"):
        failures.append("download: skipped, because DQNLM_OFFLINE is set")
        return None
    try:
        data = download(
            TINY_SHAKESPEARE_URL, TINY_SHAKESPEARE_SHA256, TINY_SHAKESPEARE_BYTES, timeout_s=DOWNLOAD_TIMEOUT_S
        )
    except DownloadError as error:
        failures.append(f"download of {TINY_SHAKESPEARE_URL}: {error}")
        return None
    cached = cache_folder() / TINY_SHAKESPEARE_FILE
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(cached, data)
    except OSError as error:
        note = f"The download could not be kept as {cached} ({error.strerror}); the next run fetches it again."
        text = data.decode("utf-8")
        return TextSource(text, "tiny Shakespeare", TINY_SHAKESPEARE_URL, TINY_SHAKESPEARE_SHA256, notes=[note])
    return _pinned(cached, "the cache")
