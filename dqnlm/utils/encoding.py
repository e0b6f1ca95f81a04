"""Bytes of a file to text: what is packed is unpacked, the encoding is told by its mark or by its zeros, the rest is UTF-8.

    begins with              read as
    1F 8B                    gzip, whatever the name says
    EF BB BF                 UTF-8, without the mark
    FF FE, FE FF             UTF-16, little-endian and big-endian
    FF FE 00 00, 00 00 FE FF UTF-32
    (no mark, many zeros)    UTF-16, if that gives a text
    (anything else)          UTF-8

An encoding without a mark, such as Windows-1252, cannot be told from its siblings, so it is refused with the command that
converts it.
"""

from __future__ import annotations

import codecs
import gzip
import sys
import unicodedata
import zlib
from pathlib import Path

from dqnlm.errors import UserError

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip  # the longer marks first: one begins with another
_NAMES = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE", "utf-32-le": "UTF-32LE", "utf-32-be": "UTF-32BE"}  # iconv's
_AS_A_TABLE = "read it by data=logged or data=prompts, or a column of texts by data=hub data.name=FOLDER data.text_column=NAME"
_OTHER = (
    (PARQUET, "a parquet table", _AS_A_TABLE),
    (b"ARROW1", "an Arrow file", "write it as parquet or JSON lines"),
    (b"PK\x03\x04", "a zip archive (or an Excel or Word document)", "unpack it, or save the document as CSV or plain text"),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "save it as CSV or plain text"),
    (b"%PDF-", "a PDF", "convert it to text, for example: pdftotext {name}"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it first: unzstd {name}"),
    (b"\xfd7zXZ\x00", "packed with xz", "unpack it first: unxz {name}"),
    (b"BZh91AY&SY", "packed with bzip2", "unpack it first: bunzip2 {name}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"SQLite format 3\x00", "an SQLite database", "write the table as CSV or JSON lines"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"),
)
_MANY_ZEROS = 0.01  # share of the bytes; a text has none
_FEW_ZEROS = 8  # so many are no sign of anything in a short text
_IF_UTF8, _IF_NOT = 0.03, 0.001  # shares of zeros from which UTF-16 is tried: of bytes that are valid UTF-8, and of others
_STRAY = 0.001  # share of characters that no text has, in what is taken for UTF-16


def unpacked(data: bytes, file: Path, setting: str) -> tuple[bytes, list[str]]:
    """The content of a gzip file, recognised by its first bytes; other bytes as they are. Returns notes as well.

    Raises:
        UserError: the gzip file is cut or damaged, or only the name says that it is one.
    """
    named = file.name.lower().endswith(".gz")
    if not data.startswith(GZIP):
        if named and data:
            raise UserError(
                f"{setting}: {file} is no complete gzip file: it is not packed. If it is whole, rename it to {file.name[:-3]}."
            )
        return data, []
    try:
        content = gzip.decompress(data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{setting}: {file} is no complete gzip file: {error}. Fetch or copy it again.") from error
    return content, [] if named else [f"{file}: it is packed with gzip, though its name does not say so, and was unpacked."]


def text_of(data: bytes, file: Path, setting: str) -> tuple[str, list[str]]:
    """The text in a file's bytes, packed or not, and notes about how it was read.

    Args:
        data: of the whole file.
        file: for messages.
        setting: what named it, such as "data.path", for messages.

    Raises:
        UserError: it is damaged, of another kind, or in an encoding that nothing tells.
    """
    data, notes = unpacked(data, file, setting)
    for begin, what, advice in _OTHER:
        if data.startswith(begin):
            how = advice.format(name=file.name)
            raise UserError(f"{setting}: {file} is no text: it is {what}. {how[0].upper()}{how[1:]}.")
    mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", ""))
    if encoding:
        notes += [f"{file}: the byte-order mark at the start was left out."]
    else:
        encoding = _without_mark(data)
    if encoding != "utf-8":
        how = "by its mark" if mark else "it has no mark, but zeros as that has"
        notes += [f"{file}: it was read as {_NAMES[encoding]} ({how})."]
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UserError(
                f"{setting}: {file} begins as {_NAMES[encoding]} but is cut or damaged at offset {error.start + len(mark):,}: "
                f"{error.reason}. Fetch or copy it again."
            ) from error
        raise _no_utf8(data, error.start + len(mark), error.reason, file, setting) from error
    return text, notes + _zeros(text, file, setting)


def _without_mark(data: bytes) -> str:
    """The encoding of bytes without a mark: UTF-16 where zeros are many and reading them so gives a text, else UTF-8."""
    if len(data) % 2 or data.count(0) < _IF_NOT * len(data):
        return "utf-8"
    try:
        data.decode("utf-8")
        least = _IF_UTF8
    except UnicodeDecodeError:
        least = _IF_NOT
    if data.count(0) < max(least * len(data), 1):
        return "utf-8"
    likely = {encoding: _plain(data, encoding) for encoding in ("utf-16-le", "utf-16-be")}
    best = max(likely, key=lambda encoding: likely[encoding])
    return best if likely[best] > 0 else "utf-8"


def _plain(data: bytes, encoding: str) -> float:
    """Share of spaces, line breaks and ASCII in what an encoding gives; 0 where that is no text."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    sample = text[:100_000]
    stray = sum(c not in "\t\n\r\f" and unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") for c in sample)
    return sum(c.isascii() for c in sample) / len(sample) if stray <= _STRAY * len(sample) else 0.0


def _zeros(text: str, file: Path, setting: str) -> list[str]:
    """A note about zero characters; UserError where they are many."""
    count = text.count("\0")
    if count > max(_MANY_ZEROS * len(text), _FEW_ZEROS):
        raise UserError(
            f"{setting}: {file} is no text: {count / len(text):.0%} of its characters are zeros (NUL). It is a binary file, or "
            "a text converted from a wrong encoding: convert it anew from the original, for example: "
            f"iconv -f UTF-16 -t UTF-8 ORIGINAL > {file.name}"
        )
    return [f"{file}: {count:,} characters are zeros (NUL), and were kept."] if count else []


def _no_utf8(data: bytes, offset: int, reason: str, file: Path, setting: str) -> UserError:
    line = data.count(b"\n", 0, offset) + 1
    around = data[data.rfind(b"\n", 0, offset) + 1 :].split(b"\n", 1)[0]
    begin = max(0, offset - (data.rfind(b"\n", 0, offset) + 1) - 20)
    shown = around[begin : begin + 40].decode("cp1252", errors="replace").strip()
    return UserError(
        f"{setting}: {file}, line {line:,} is no UTF-8: byte 0x{data[offset]:02x} at offset {offset:,}: {reason}. Read as "
        f"Windows-1252 it is {shown!r}; if that is right, convert it: iconv -f CP1252 -t UTF-8 {file.name} > utf8-{file.name} "
        "(else put the encoding that it has in the place of CP1252)"
    )


def typed_text(name: str, setting: str) -> str:
    """The text of a file that a command names, or of standard input (`-`), read as data files are: with line breaks `\\n`.

    Args:
        name: of the file.
        setting: the flag, such as "--prompt-file", for messages.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UserError(f"{setting} {name}: {error.strerror}; give a file that can be read, or - for standard input") from None
    text, notes = text_of(raw, Path("standard input" if name == "-" else name), setting)
    if "\r" in text:
        notes.append("carriage returns were read as line breaks.")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    for note in notes:
        print(note, file=sys.stderr)
    return text
