"""Loggers of other services: what is sent, one identity through a resume, nothing over the network where that is forbidden."""

from __future__ import annotations

import json
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dqnlm.builder import launch
from dqnlm.errors import UserError
from dqnlm.runs.trackio_logger import Trackio
from dqnlm.runs.wandb_logger import WeightsAndBiases
from tests.helpers import runs as tools

SETTINGS = {"seed": 3, "env": {"_target_": "a.B", "horizon": 8, "stop_token": None}}
Calls = list[tuple[str, Any]]


class Recorded(types.ModuleType):
    """Stands for the package of a service and for a run of it: notes each call."""

    def __init__(self, name: str, calls: Calls, api_key: str | None = None) -> None:
        super().__init__(name)
        self.calls, self.url = calls, "https://example.org/run"
        self.api = types.SimpleNamespace(api_key=api_key)
        self.errors = types.SimpleNamespace(Error=ConnectionError)

    def init(self, **given: Any) -> Recorded:
        self.calls.append(("init", given))
        return self

    def log(self, figures: dict[str, Any], step: int) -> None:
        self.calls.append(("log", (step, figures)))

    def finish(self) -> None:
        self.calls.append(("finish", None))

    def Settings(self, **given: Any) -> dict[str, Any]:
        return given

    def Table(self, columns: list[str], data: list[list[str]]) -> dict[str, Any]:
        return {"columns": columns, "data": data}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Calls to `wandb` and `trackio`, which are replaced by recorders; nobody is logged in, and the network is allowed."""
    noted: Calls = []
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, Recorded(name, noted))
    for name in ("DQNLM_OFFLINE", "WANDB_MODE", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    return noted


def wandb_logger(folder: Path, mode: Any = None, purge: int | None = None) -> WeightsAndBiases:
    return WeightsAndBiases(folder, purge, SETTINGS, project="p", entity="e", mode=mode)


def trackio_logger(folder: Path, space: str | None = None, purge: int | None = None) -> Trackio:
    return Trackio(folder, purge, SETTINGS, project="p", space=space)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "2026-01-02" / "10-11-12-shakespeare"
    folder.mkdir(parents=True)
    return folder


def use(logger: Any) -> list[str]:
    said: list[str] = logger.open()
    logger.write(4, {"loss/td": 0.5})
    logger.write_samples(4, [("a", "bc"), ("", "d\ne")])
    logger.write_samples(4, [])
    logger.close()
    return said


SENT = [
    ("log", (4, {"loss/td": 0.5})),
    ("log", (4, {"samples": {"columns": ["prompt", "text"], "data": [["a", "bc"], ["", "d\ne"]]}})),
    ("finish", None),
]


def test_what_wandb_is_given(calls: Calls, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: settings, samples or the step are lost; a resumed run becomes another one; another run takes its place."""
    logger = wandb_logger(run, "offline")
    assert not calls and not list(run.iterdir()), "nothing begins before the run does"
    said = use(logger)
    kind, given = calls[0]
    assert kind == "init" and given["config"] == SETTINGS and given["project"] == "p" and given["entity"] == "e"
    assert given["name"] == "2026-01-02/10-11-12-shakespeare" and given["dir"] == str(run) and given["mode"] == "offline"
    assert calls[1:] == SENT and f"wandb sync {run}/wandb/*-{given['id']}" in said[0]
    name = given["id"]
    said = use(wandb_logger(run, "offline", purge=5))
    assert f"wandb sync --id {name} {run}/wandb/*-{name}" in said[0] and calls[4][1]["id"] == name
    sys.modules["wandb"].api.api_key = "k"  # type: ignore[attr-defined]
    assert use(wandb_logger(run, purge=5)) == ["wandb: https://example.org/run"]
    online = calls[8][1]
    assert online["id"] == name and online["mode"] == "online" and online["resume"] == "allow"
    other = run.parent / "other"
    other.mkdir()
    use(wandb_logger(other, "offline"))
    assert calls[12][1]["id"] != name
    monkeypatch.setenv("DQNLM_OFFLINE", "1")
    assert "offline (DQNLM_OFFLINE is set)" in use(wandb_logger(run))[0] and calls[16][1]["mode"] == "offline"


def test_what_trackio_is_given(calls: Calls, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for wandb. Bug: with DQNLM_OFFLINE a Space, of a setting or of the package's own variable, is waited for."""
    logger = trackio_logger(run)
    assert not calls and not list(run.iterdir())
    assert "kept on this machine; " in use(logger)[0]
    given = calls[0][1]
    assert given["config"] == SETTINGS and given["resume"] == "allow" and given["space_id"] is None
    assert given["name"].startswith("2026-01-02/10-11-12-shakespeare ") and calls[1:] == SENT
    use(trackio_logger(run, purge=5))
    assert calls[4][1]["name"] == given["name"]
    assert use(trackio_logger(run, "me/space")) == ["trackio: sent to me/space"] and calls[8][1]["space_id"] == "me/space"
    monkeypatch.setenv("DQNLM_OFFLINE", "1")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/other")
    seen: list[str | None] = []
    monkeypatch.setattr(Recorded, "init", lambda self, **given: seen.extend([given["space_id"], sys_space()]))

    def sys_space() -> str | None:
        import os

        return os.environ.get("TRACKIO_SPACE_ID")

    for space in (None, "me/space"):
        assert "kept on this machine (DQNLM_OFFLINE is set)" in trackio_logger(run, space).open()[0]
    assert seen == [None] * 4 and sys_space() == "me/other"


def test_who_cannot_send_is_told_before_the_run(calls: Calls, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a question for a key in the middle of a start, or a traceback when the service does not answer."""
    with pytest.raises(UserError, match=r"nobody is logged in.*\n.*WANDB_MODE=offline"):
        wandb_logger(run)
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match=r"WANDB_MODE=ofline is none of .*\n  did you mean WANDB_MODE=offline\?"):
        wandb_logger(run)
    monkeypatch.delenv("WANDB_MODE")
    sys.modules["wandb"].api.api_key = "k"  # type: ignore[attr-defined]
    logger = wandb_logger(run)

    def refuse(**_: Any) -> None:
        raise ConnectionError("no\nanswer")

    sys.modules["wandb"].init = refuse  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="no answer"):
        logger.open()


@pytest.mark.parametrize(("name", "make"), [("wandb", wandb_logger), ("trackio", trackio_logger)])
def test_a_missing_package(name: str, make: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a traceback, or a run without the logger that was asked for."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install 'dqnlm\[{name}\]', or set logger=none"):
        make(run)


@pytest.mark.parametrize("content", ["", "[1]", '{"wandb": 3}', "\x00"])
def test_a_damaged_identity_is_made_anew(calls: Calls, run: Path, content: str) -> None:
    """Bug: a file that was cut keeps a run from going on."""
    (run / "tracking.json").write_text(content)
    use(wandb_logger(run, "offline"))
    assert json.loads((run / "tracking.json").read_text())["wandb"] == calls[0][1]["id"]


# ---- the real packages, offline


def killed_and_resumed(folder: Path, text: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """A run that is killed after rollout 8 (the last checkpoint is that of 6) and goes on to 12; log points at 2, 4 ... 12."""
    with monkeypatch.context() as patch:
        tools.at_rollout(patch, 8, tools.kill)
        with pytest.raises(tools.Killed):
            tools.start(folder, text, *words)
    launch.resume(folder, [])


def wandb_records(file: Path) -> Iterator[Any]:
    """Records of a .wandb file: LevelDB's log format, blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def items(found: Any) -> dict[str, Any]:
    """Key -> value of the items of a history record, or of the updates of a configuration."""
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in found}


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the real package refuses what the recorder takes; a resumed run is another one; steps, samples, settings missing."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("DQNLM_OFFLINE", "1")
    folder = tmp_path / "day" / "run"
    killed_and_resumed(folder, tools.write_text(tmp_path / "text.txt"), monkeypatch, "logger=wandb")
    name = json.loads((folder / "tracking.json").read_text())["wandb"]
    files = sorted((folder / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2
    records = [record for file in files for record in wandb_records(file)]
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert {run.run_id for run in runs} == {name} and items(runs[0].config.update)["env"]["horizon"] == 8
    rows = [items(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    lines = tools.lines(folder / "metrics.jsonl")
    for line in lines:  # each point of metrics.jsonl was sent, at its step
        same = [row for row in rows if row["_step"] == line["step"]]
        sent = {key: value for row in same for key, value in row.items()}
        assert {key: sent.get(key) for key in line if "/" in key and not key.startswith("time/")} == {
            key: value for key, value in line.items() if "/" in key and not key.startswith("time/")
        }
    assert any(key.startswith("samples/") for row in rows for key in row), "no table of samples"


def test_trackio_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for wandb, with the package's own database."""
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    for module in list(sys.modules.values()):  # the folder is chosen when the package is imported
        if getattr(module, "__name__", "").startswith("trackio") and hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    assert tmp_path / "trackio" == utils.TRACKIO_DIR
    folder = tmp_path / "day" / "run"
    killed_and_resumed(folder, tools.write_text(tmp_path / "text.txt"), monkeypatch, "logger=trackio", "logger.project=test")
    (name,) = SQLiteStorage.get_runs("test")
    assert name == f"day/run {json.loads((folder / 'tracking.json').read_text())['trackio']}"
    assert SQLiteStorage.get_run_config("test", name)["env"]["horizon"] == 8
    rows = SQLiteStorage.get_logs("test", name)
    for line in tools.lines(folder / "metrics.jsonl"):
        sent = {key: value for row in rows if row["step"] == line["step"] for key, value in row.items()}
        figures = {key: value for key, value in line.items() if "/" in key and not key.startswith("time/")}
        assert {key: sent.get(key) for key in figures} == figures
    assert any("samples" in row for row in rows)


def test_tensorboard_has_samples_and_settings(tmp_path: Path) -> None:
    """Bug: curves alone, so that nobody sees what is written."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tools.start(tmp_path / "run", tools.write_text(tmp_path / "text.txt"), "logger=tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    written = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("samples/text_summary")]
    samples = tools.lines(tmp_path / "run" / "samples.jsonl")
    assert len(written) == len(samples) and all(
        line in text for text, sample in zip(written, samples, strict=True) for line in sample["text"].splitlines()
    )
    assert '"horizon": 8' in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
