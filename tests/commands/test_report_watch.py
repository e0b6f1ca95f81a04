"""The live page of `dqnlm report RUN --watch`: who may read it, what it says while a run trains, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dqnlm import cli
from dqnlm.commands import report_watch
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.trainer import Trainer
from tests.helpers import browser, processes, reports
from tests.helpers import runs as tools
from tests.helpers.paths import ROOT

pytest.importorskip("matplotlib")


@contextlib.contextmanager
def served(run: Path, metric: str | None = None, port: int = 0) -> Iterator[report_watch.Server]:
    """The page of a run folder, answered by a thread of this process."""
    options = argparse.Namespace(metric=metric, output_dir=str(run.parent.parent), allow_targets=[], base=None)
    server = report_watch.make_server(report_watch.Watched(RunDirectory(run), options), port)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def get(
    server: report_watch.Server, part: str, token: str | None = None, host: str | None = None
) -> tuple[int, str, dict[str, str]]:
    """(code, text, headers) of a part of the page."""
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("GET", f"/{server.token if token is None else token}/{part}", skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode("utf-8"), {key.lower(): value for key, value in answer.getheaders()}
    connection.close()
    return found


def state(server: report_watch.Server) -> dict[str, Any]:
    code, text, _ = get(server, "state")
    assert code == 200
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    samples = [{"step": 0, "kind": "greedy", "prompt": "\n", "text": "<script>alert(1)</script> & more"}]
    return reports.make_run(tmp_path / "outputs" / "day" / "run<b>", samples=samples)


@pytest.mark.parametrize("part", ["", "state", "report", "inspect", "nothing"])
def test_without_the_token_nothing_is_said(run: Path, part: str) -> None:
    """Bug: another user of the machine, or a page of another site, reads the run; a part that was forgotten."""
    with served(run) as server, served(run) as other:
        assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32 and server.token != other.token
        wrong = ["", "x", server.token[:-1], f"{server.token}x", server.token.swapcase(), other.token, "%00", f"x/{server.token}"]
        for token in wrong:
            code, text, _ = get(server, part, token=token)
            assert code == 403 and "needs the token" in text and server.token not in text, token
        for host in ("example.org", f"example.org:{server.server_address[1]}", "127.0.0.1", "127.0.0.1:1"):
            assert get(server, part, host=host)[0] == 403
        assert get(server, part, host=f"localhost:{server.server_address[1]}")[0] == (404 if part == "nothing" else 200)


def test_the_page(run: Path) -> None:
    """Bug: a name or a sample is run as code, the token is in the text, or something is loaded from elsewhere."""
    with served(run) as server:
        code, text, headers = get(server, "")
        assert code == 200 and "run&lt;b&gt;" in text and "run<b>" not in text and server.token not in text
        nonce = re.search(r'<script nonce="([^"]+)">', text)
        assert nonce is not None and f"script-src 'nonce-{nonce[1]}'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"] and "http" not in text.replace("http-equiv", "")
        assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
        report = get(server, "report")[1]
        assert "<h2>Curves</h2>" in report and "<svg" in report and "0.4" in report
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in report and "<script" not in report


def test_it_follows_the_files(run: Path) -> None:
    """Bug: a page that shows what was there when it was opened."""
    with served(run) as server:
        before, report = state(server), get(server, "report")[1]
        assert before == state(server) and before["checkpoint"] is None
        reports.lines(run / "metrics.jsonl", reports.rising(top=0.77))
        after = state(server)
        assert after["report"] != before["report"] and "<b>0.7700</b>" not in report
        assert "<b>0.7700</b>" in get(server, "report")[1]
        for step in (9, 100):
            (run / "checkpoints" / f"step-{step:09d}").mkdir(parents=True)
        assert int(state(server)["checkpoint"]) == 100
        (run / "summary.json").write_text(json.dumps({"status": "finished"}))
        os.utime(run / "metrics.jsonl", (1, 1))
        assert state(server)["status"] == "finished"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.jsonl", "", "there is no log point yet"),
        ("metrics.jsonl", "nonsense\n", "line 1: not JSON"),
        ("samples.jsonl", "[]\n", "should be a JSON object"),
        ("manifest.json", "{", "The file is damaged"),
        ("config.yaml", "a: [", "is damaged"),
        ("summary.json", "{", "The file is damaged"),
    ],
)
def test_what_is_not_there_yet(run: Path, file: str, content: str, said: str) -> None:
    """Bug: a file that is just being written, or is damaged, ends the page."""
    (run / file).write_text(content)
    with served(run) as server:
        assert get(server, "")[0] == 200 and state(server)["checkpoint"] is None
        code, text, _ = get(server, "report")
        assert code == 200 and said in text
        code, text, _ = get(server, "inspect")
        assert code == 200 and "<script" not in text


def test_before_the_first_evaluation(tmp_path: Path) -> None:
    """Bug: no curve until the first evaluation, which in a long run is an hour away."""
    points = [reports.point(step, loss_td=1.0 / (1 + step)) for step in range(3)]
    run = reports.make_run(tmp_path / "outputs" / "day" / "run", points=points)
    with served(run) as server:
        assert "<svg" in get(server, "report")[1]
    with served(run, metric="eval/accuracy") as server:
        assert "no run logged this metric" in get(server, "report")[1]


def test_a_busy_port(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: a traceback, or two pages that answer in turn."""
    with served(run) as server:
        port = server.server_address[1]
        for words, message in (
            (["--watch", "--port", str(port)], f"--port {port} cannot be used"), (["--watch", "--port", "70000"], "1 to 65535"),
            (["--watch", "--output", "x.html"], "writes no file"), ([str(run.parent), "--watch"], "is of one run"),
        ):  # fmt: skip
            assert cli.main(["report", str(run), *words]) == 2
            assert message in capfd.readouterr().err


def test_while_a_run_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves, samples and the inspector from inside a run, after rollouts 4 and 8 (checkpoints of 3 and 6).

    Bug: the inspector stays at an old checkpoint, is of another text, or reads a checkpoint that is not whole.
    """
    run = tmp_path / "outputs" / "day" / "run"
    found: list[tuple[dict[str, Any], str, str]] = []

    def look(trainer: Trainer) -> None:
        with served(run) as server:
            pages = (get(server, "report")[1], get(server, "inspect?text=tea%20at%20ten")[1])
            found.append((state(server), *pages))

    for number in (4, 8):
        tools.at_rollout(monkeypatch, number, look)
    tools.start(run, tools.write_text(tmp_path / "text.txt"))
    assert len(found) == 2 and found[0][0]["status"] == "running"
    steps = [int(seen["checkpoint"]) for seen, _, _ in found]
    saved = sorted(int(folder.name.removeprefix("step-")) for folder in (run / "checkpoints").glob("step-*"))
    assert 0 < steps[0] < steps[1] and steps[1] <= saved[-1] and found[0][0]["report"] != found[1][0]["report"]
    for step, (_, report, page) in zip(steps, found, strict=True):
        assert "<svg" in report and f"<dd>{step:,}</dd>" in page.replace("\n", "") and "tokens scored" in page
    with served(run) as server:
        sample = tools.lines(run / "samples.jsonl")[-1]
        newest = get(server, "inspect")[1]
        expected = str(len(sample["prompt"] + sample["text"]) - 1)
        assert re.search(rf"<b>{expected}</b>\s*<span>tokens scored", newest), "the newest sample is looked at"
        assert "Unknown" not in get(server, "inspect?text=%C3%A9%C3%A9")[1] and "<script" not in get(server, "inspect?text=e")[1]


def started(run: Path) -> Any:
    words = [sys.executable, "-m", "dqnlm", "report", str(run), "--watch"]
    return processes.started(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"})


def test_ctrl_c_ends_it(run: Path) -> None:
    """Bug: a traceback, a process that stays, or an address that does not work as printed."""
    with started(run) as process:
        address = process.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", address)
        assert found is not None, address
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", f"/{found[2]}/state")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in error and out.endswith("ended\n")


@pytest.mark.slow
@pytest.mark.skipif(browser.found() is None, reason="no Chromium on the path (or in $DQNLM_CHROMIUM)")
def test_in_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script in Chromium, beside a run that is finished and then written to.

    Bug: it stops at an error, its own policy forbids it, it does not look again, it closes what the reader opened, or the
    inspector does not come, shows another text, or has no colours because its script is forbidden.
    """
    run = tmp_path / "outputs" / "day" / "run"
    tools.start(run, tools.write_text(tmp_path / "text.txt"))
    monkeypatch.setattr(report_watch, "SECONDS", 0.2)
    with served(run) as server, browser.opened(report_watch.address(server), tmp_path) as page:
        page.until("document.querySelectorAll('#report svg').length > 2")
        page.until("document.getElementById('live').textContent.startsWith('finished, looked at')")
        page.until("!document.getElementById('inspector').hidden")
        page.evaluate("document.querySelector('#report details:last-of-type').open = true")
        page.evaluate("document.getElementById('axis-wall_s').checked = true")
        lines = tools.lines(run / "metrics.jsonl")
        reports.lines(run / "metrics.jsonl", [*lines, lines[-1] | {"step": 987654}])
        page.until("document.getElementById('report').textContent.includes('987654') || "
                   "document.getElementById('report').textContent.includes('987,654')")  # fmt: skip
        assert page.evaluate("document.querySelector('#report details:last-of-type').open") is True
        assert page.evaluate("document.getElementById('axis-wall_s').checked") is True
        page.evaluate("document.getElementById('text').value = 'tea at ten'; document.querySelector('#ask button').click()")
        page.until("document.getElementById('inspector').src.endsWith('text=tea%20at%20ten')")
        address = page.evaluate("document.getElementById('inspector').src")
        assert not page.errors, page.errors
    with served(run) as server, browser.opened(report_watch.address(server) + address.rpartition("/")[2], tmp_path) as page:
        page.until("document.querySelectorAll('#text span').length >= 9")
        page.evaluate("document.querySelector('#text [data-x]').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
        page.until("document.getElementById('what').textContent.startsWith('token 2 of 10')")
        assert not page.errors, page.errors
