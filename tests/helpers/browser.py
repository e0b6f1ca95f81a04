"""A page in a headless Chromium, asked through its debugging pipe, so that no package is needed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
WAIT_S = 30.0


def found() -> str | None:
    """$DQNLM_CHROMIUM, or a browser on the path."""
    return os.environ.get("DQNLM_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page.

    Attributes:
        errors: what its scripts, and its policy of content, complained about.
    """

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes, self._number, self._rest = reads, writes, 0, b""
        self._session: dict[str, str] = {}
        self.errors: list[str] = []

    def open(self, address: str) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the DevTools protocol; notes the errors that come meanwhile."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            *whole, self._rest = self._rest.split(b"\0")
            for number, text in enumerate(whole):
                answer = json.loads(text)
                if answer.get("id") == self._number:
                    self._rest = b"\0".join([*whole[number + 1 :], self._rest])
                    assert "error" not in answer, answer
                    result: dict[str, Any] = answer["result"]
                    return result
                self._note(answer)
            if select.select([self._reads], [], [], 0.1)[0]:
                self._rest += os.read(self._reads, 1 << 20)
        raise TimeoutError(method)

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(given["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error" and "favicon" not in str(given):
            self.errors.append(given["entry"]["text"])

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + WAIT_S
        while not self.evaluate(f"Boolean({script})"):
            assert time.monotonic() < end, (script, self.errors, self.evaluate("document.body.innerText"))
            time.sleep(0.05)


@contextlib.contextmanager
def opened(address: str, folder: Path) -> Iterator[Page]:
    """A page at this address; `folder` takes the browser's files. The browser is killed at the end."""
    browser, (their_input, ours), (theirs, their_output) = found(), os.pipe(), os.pipe()
    assert browser is not None
    shell = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'  # Chromium reads its commands from 3 and answers on 4
    words = [browser, *FLAGS, f"--user-data-dir={folder}/browser"]
    words = ["bash", "-c", shell, "bash", str(their_input), str(their_output), *words]
    process = subprocess.Popen(words, pass_fds=(their_input, their_output), stderr=subprocess.DEVNULL)
    for end in (their_input, their_output):
        os.close(end)
    try:
        page = Page(theirs, ours)
        page.open(address)
        yield page
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
