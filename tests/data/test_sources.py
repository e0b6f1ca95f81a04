"""Where a text comes from, in which order, and what is said when something is wrong with it."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dqnlm.data.text import sources
from dqnlm.data.text.reading import TextSource, read_text
from dqnlm.errors import UserError

TEXT = "First Miller:\nGrind, you old stones, and sing for bread.\n\n" * 20  # stands in for tiny Shakespeare
DATA = TEXT.encode()


class Server:
    """A local web server whose answer a test chooses."""

    def __init__(self) -> None:
        self.body = DATA
        self.promised = len(DATA)  # Content-Length; more than the body breaks the transfer off
        self.status = 200
        self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                self.send_response(server.status)
                self.send_header("Content-Length", str(server.promised))
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/input.txt"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves TEXT at the pinned address."""
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(sources, "TINY_SHAKESPEARE_URL", server.url)
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No copy anywhere, no network, and TEXT as the pinned text."""
    monkeypatch.setattr(sources, "TINY_SHAKESPEARE_SHA256", hashlib.sha256(DATA).hexdigest())
    monkeypatch.setattr(sources, "TINY_SHAKESPEARE_BYTES", len(DATA))
    monkeypatch.setattr(sources, "TINY_SHAKESPEARE_URL", "http://127.0.0.1:9/closed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DQNLM_DATA_DIR", raising=False)
    monkeypatch.delenv("DQNLM_OFFLINE", raising=False)


def find(path: Path | None = None, fallback: bool = False) -> TextSource:
    return sources.tiny_shakespeare(
        path=None if path is None else str(path), bundled_fallback=fallback, bundled_characters=2_000, bundled_seed=0
    )


def put(folder: Path, data: bytes = DATA) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tinyshakespeare.txt"
    file.write_bytes(data)
    return file


def cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "dqnlm"
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def test_the_pinned_values() -> None:
    """Guards the pins themselves, which every other test here replaces."""
    fresh = importlib.util.module_from_spec(sources.__spec__)  # type: ignore[arg-type]
    sources.__spec__.loader.exec_module(fresh)  # type: ignore[union-attr]
    assert fresh.TINY_SHAKESPEARE_SHA256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert fresh.TINY_SHAKESPEARE_BYTES == 1_115_394
    assert "/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/" in fresh.TINY_SHAKESPEARE_URL
    assert fresh.TINY_SHAKESPEARE_URL.startswith("https://")


def test_source_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Guards the order data.path, $DQNLM_DATA_DIR, cache, download: each wins over all that follow it."""
    given = put(tmp_path / "given")
    shared = put(tmp_path / "shared")
    in_cache = put(tmp_path / "cache" / "dqnlm")
    monkeypatch.setenv("DQNLM_DATA_DIR", str(shared.parent))
    assert find(given).origin == str(given)
    assert find().origin == str(shared)
    shared.unlink()
    assert find().origin == str(in_cache)
    in_cache.unlink()
    assert server.requests == 0
    source = find()
    assert server.requests == 1 and source.text == TEXT and not source.bundled and not source.notes
    assert cached(tmp_path) == ["tinyshakespeare.txt"]
    assert find().origin == str(in_cache) and server.requests == 1


def test_offline_skips_the_download(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Guards DQNLM_OFFLINE: nothing is asked of the network."""
    monkeypatch.setenv("DQNLM_OFFLINE", "1")
    with pytest.raises(UserError, match="DQNLM_OFFLINE is set"):
        find()
    assert server.requests == 0


def test_download_with_wrong_sha256(tmp_path: Path, server: Server) -> None:
    """Guards verification: other bytes of the right length are neither used nor kept."""
    server.body = DATA.replace(b"bread", b"bride", 1)
    with pytest.raises(UserError, match="the sha256 is"):
        find()
    assert cached(tmp_path) == []


def test_download_that_breaks_off(tmp_path: Path, server: Server) -> None:
    """Guards atomicity: half a transfer leaves nothing, and the next try starts anew."""
    server.body = DATA[:100]
    with pytest.raises(UserError, match=r"IncompleteRead|100 bytes of"):
        find()
    assert cached(tmp_path) == []
    server.body = DATA
    assert find().text == TEXT


@pytest.mark.parametrize("extra", [1, 1_000_000])
def test_download_that_is_too_long(extra: int, tmp_path: Path, server: Server) -> None:
    """Guards the size limit: a longer answer is refused, and not read to its end."""
    server.body = DATA + b"x" * extra
    server.promised = len(server.body)
    with pytest.raises(UserError, match=f"gave {len(DATA) + 1:,} bytes"):
        find()
    assert cached(tmp_path) == []


def test_download_refused_by_the_server(tmp_path: Path, server: Server) -> None:
    """Guards HTTP errors: the status is told, the page is not taken for the text."""
    server.status = 404
    with pytest.raises(UserError, match="404"):
        find()
    assert cached(tmp_path) == []


def test_cache_that_cannot_be_written(tmp_path: Path, server: Server) -> None:
    """Guards against failing for want of a cache: the text in memory is used, and a note says so."""
    (tmp_path / "cache").write_text("a file where the folder should be")
    source = find()
    assert source.text == TEXT and "could not be kept" in source.notes[0]


def test_bundled_corpus_stands_in_and_says_so() -> None:
    """Guards the fallback: never silent, every place named."""
    source = find(fallback=True)
    assert source.bundled and len(source.text) == 2_000
    told = "\n".join(source.notes)
    assert "stands in" in told and "$DQNLM_DATA_DIR is not set" in told
    assert "the cache: no file" in told and "http://127.0.0.1:9/closed" in told


def test_bundled_corpus_refused() -> None:
    """Guards data.bundled_fallback=false: an error with every place and with what to do."""
    with pytest.raises(UserError) as raised:
        find()
    for part in ("$DQNLM_DATA_DIR is not set", "the cache: no file", "download of", "data.path=", "bundled_fallback"):
        assert part in str(raised.value)


def test_missing_path_is_an_error_even_with_fallback(tmp_path: Path) -> None:
    """Guards data.path: a misspelt name must not train on another text; the nearest name is suggested."""
    put(tmp_path)
    with pytest.raises(UserError, match=r"Did you mean .*/tinyshakespeare\.txt\?"):
        find(tmp_path / "tinyshakspere.txt", fallback=True)
    with pytest.raises(UserError, match="does not exist"):
        find(tmp_path / "nowhere" / "a.txt", fallback=True)


@pytest.mark.parametrize("place", ["given", "shared", "cache/dqnlm"])
def test_wrong_copy_is_an_error_even_with_fallback(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """Guards the sha256 of local copies: a cut or edited file is not used and not passed over."""
    file = put(tmp_path / place, DATA[:-1])
    monkeypatch.setenv("DQNLM_DATA_DIR", str(tmp_path / "shared"))
    with pytest.raises(UserError, match="is not tiny Shakespeare") as raised:
        find(file if place == "given" else None, fallback=True)
    assert ("data=text_file" in str(raised.value)) == (place == "given")
    assert server.requests == 0


def test_copy_with_carriage_returns_is_the_same_text(tmp_path: Path) -> None:
    """Guards a copy that a version-control system gave other line breaks."""
    source = find(put(tmp_path, DATA.replace(b"\n", b"\r\n")))
    assert source.text == TEXT and "carriage returns" in source.notes[0]


def test_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards reading: exact text for odd characters and odd names, its sha256, nothing left in the working folder."""
    monkeypatch.chdir(tmp_path)
    text = "  Zwölf Boxkämpfer\x0c\u2028\x1c\x00漢字 🙂\n\n\n end without a line break "
    for name in ("plain.txt", "a[1]*?.txt", "b::c.txt", ".hidden", "#x%20.TXT"):
        Path(name).write_text(text, encoding="utf-8")
        source = sources.text_file(path=name)
        assert source.text == text and source.name == name and source.origin == str(tmp_path / name)
        assert source.sha256 == hashlib.sha256(Path(name).read_bytes()).hexdigest()
        assert [note for note in source.notes if "zeros" not in note] == [] and len(source.notes) == 1  # of the NUL in it
        Path(name).unlink()
    assert list(tmp_path.iterdir()) == []


def test_changed_file_with_an_old_time_stamp_is_read_anew(tmp_path: Path) -> None:
    """Guards against a stale cache of `datasets`, which knows a file by its time stamp."""
    file = tmp_path / "a.txt"
    for text in ("first version", "other version"):
        file.write_text(text)
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert sources.text_file(path=str(file)).text == text


def test_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    """Guards the vocabulary against U+FEFF as a character of its own."""
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfhello\rworld")
    text, notes = read_text(file, "data.path")
    assert text == "hello\nworld" and len(notes) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "nothing but white space"),
        (b"good\nfine\nbad \xe9 byte\n", "line 3 is no UTF-8: byte 0xe9 at offset 14: .*bad é byte.*iconv -f CP1252"),
        (b"cut off \xe6\xbc", "line 1 is no UTF-8: byte 0xe6 at offset 8: unexpected end"),
        (gzip.compress(b"text", mtime=0)[:-3], "no complete gzip file"),
    ],
)
def test_bad_contents(content: bytes, message: str, tmp_path: Path) -> None:
    """Guards the messages for files that cannot be trained on."""
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        sources.text_file(path=str(file))
    assert "data.path" in str(raised.value) and str(file) in str(raised.value)


def test_bad_paths(tmp_path: Path) -> None:
    """Guards the messages for paths that name no file."""
    (tmp_path / "novel.txt").write_text("text")
    with pytest.raises(UserError, match=r"add data\.path=FILE"):
        sources.text_file(path=None)
    with pytest.raises(UserError, match=r"is a folder.*novel\.txt"):
        sources.text_file(path=str(tmp_path))
    with pytest.raises(UserError, match=r"Did you mean .*novel\.txt"):
        sources.text_file(path=str(tmp_path / "novle.txt"))
    with pytest.raises(UserError, match="relative to where"):
        sources.text_file(path=str(tmp_path / "completely different"))
    with pytest.raises(UserError, match="cannot be read"):
        sources.text_file(path=str(tmp_path / "novel.txt" / "inside"))
