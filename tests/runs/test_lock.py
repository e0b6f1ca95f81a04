"""A run has one owner: two processes never train it at once, and a killed one leaves it free."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from dqnlm.builder import launch
from dqnlm.errors import UserError
from dqnlm.runs import lock
from dqnlm.training.trainer import Trainer
from tests.helpers import processes
from tests.helpers import runs as tools

pytestmark = pytest.mark.skipif(lock.fcntl is None, reason="this platform has no flock")
HOLD = """
import sys, time
from pathlib import Path
from dqnlm.runs.lock import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_resume_beside_the_living_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: both finish with code 0, and their metrics and checkpoints are mixed."""
    told: list[str] = []

    def resume_in_between(trainer: Trainer) -> None:
        with pytest.raises(UserError) as caught:
            launch.resume(tmp_path / "run", [])
        told.append(str(caught.value))

    tools.at_rollout(monkeypatch, 2, resume_in_between)
    tools.start(tmp_path / "run", tools.write_text(tmp_path / "text.txt"), "trainer.rollouts=3")
    assert f"process {os.getpid()} on " in told[0] and "is being trained by another process" in told[0]
    assert not (tmp_path / "run" / lock.NAME).exists()
    launch.resume(tmp_path / "run", ["trainer.rollouts=4"])


def test_a_killed_owner_leaves_the_run_free(tmp_path: Path) -> None:
    """Bug: a lock outlives its process, and a run can never be resumed."""
    with processes.started([sys.executable, "-c", HOLD, str(tmp_path)], cwd=tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {process.pid} on "), lock.owned(tmp_path):
            pass
        process.kill()
        process.wait()
    assert (tmp_path / lock.NAME).exists()
    with lock.owned(tmp_path):
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", ["", "[1", "[1]", '{"pid": 5}'])
def test_a_damaged_note_is_no_traceback(tmp_path: Path, left: str) -> None:
    """Bug: the message about the owner fails on what it finds in the file."""
    with lock.owned(tmp_path):
        (tmp_path / lock.NAME).write_text(left)
        with pytest.raises(UserError, match="is being trained by another process"), lock.owned(tmp_path):
            pass
