"""`+debug=smoke` beside any experiment: every phase once, to the end, in seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dqnlm import cli
from dqnlm.config import catalogue
from dqnlm.errors import UserError
from tests.helpers import experiments, runs

EXPERIMENTS = [name for name, _ in catalogue.options("experiment")]
QUICK = ["random_walks", "logged", "debug/smoke"]
MOST_SECONDS = 60.0  # of CPU time, far above the 20 s aimed at, as machines differ: what is left as it is takes minutes


def train(folder: Path, *words: str) -> dict[str, object]:
    """Trains by the command line; the summary of the run."""
    run, began = folder / "run", time.process_time()
    assert cli.main(["train", *words, "+debug=smoke", "device=cpu", "threads=1", f"hydra.run.dir={run}"]) == 0
    spent = time.process_time() - began
    assert spent < MOST_SECONDS, f"{spent:.1f} s of CPU time"
    summary: dict[str, object] = json.loads((run / "summary.json").read_text())
    return summary


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in EXPERIMENTS])
def test_every_experiment_trains_to_its_end_in_seconds(tmp_path: Path, name: str) -> None:
    """Bug: +debug=smoke refuses an experiment, or leaves one of its sizes as it is, so that it takes minutes."""
    summary = train(tmp_path, *experiments.words(name, tmp_path))
    assert summary["status"] == "finished" and summary["best"]
    composed, _ = runs.settings([f"+experiment={name}", "device=cpu"])
    phases = {"pretraining": composed["pretraining"]["updates"], "offline": composed["trainer"]["offline_rounds"],
              "online": composed["trainer"]["rollouts"]}  # fmt: skip
    log = (tmp_path / "run/train.log").read_text()
    assert summary["totals"]["updates"] >= sum(bool(rounds) for rounds in phases.values())  # type: ignore[index]
    for phase in [phase for phase, rounds in phases.items() if rounds and sum(map(bool, phases.values())) > 1]:
        assert phase in log, f"{phase} is not in the run's summary"


@pytest.mark.slow
def test_a_long_text_of_ones_own_is_read_in_part(tmp_path: Path) -> None:
    """Bug: the numbers of the experiment are lowered, and the user's own data is read whole."""
    train(tmp_path, "+experiment=shakespeare", *experiments.text(tmp_path))
    record = json.loads((tmp_path / "run/manifest.json").read_text())["data"]
    assert record["train_tokens"] == 18_000 and record["validation_tokens"] == 1_000


def test_what_is_typed_is_not_lowered() -> None:
    """Bug: a limit overrules what was typed beside it, or reaches the run instead of the setting."""
    lowered = runs.settings(["+experiment=shakespeare", "+debug=smoke"])[0]
    assert (lowered["env"]["num_envs"], lowered["trainer"]["batch_size"], lowered["at_most"]) == (16, 16, {})
    plain = runs.settings(["+experiment=shakespeare"])[0]
    assert plain["env"]["num_envs"] > 16 and plain["trainer"]["updates_per_rollout"] == lowered["trainer"]["updates_per_rollout"]
    typed = composed("+experiment=shakespeare", "+debug=smoke", "env.num_envs=32")
    assert typed["env"]["num_envs"] == 32 and typed["trainer"]["batch_size"] == 16


def composed(*overrides: str) -> dict[str, dict[str, object]]:
    from dqnlm.config import composition, validation

    config, choices = composition.compose(list(overrides))
    return validation.validate(config, choices, list(overrides))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+at_most.env.num_evns=4", "no option of env has a setting num_evns"),
        ("+at_most.envs.num_envs=4", "there is no group envs"),
        ("+at_most.env.num_envs=many", "'many' is no finite number above 0"),
        ("+at_most.env.num_envs=0", "0 is no finite number above 0"),
        ("+at_most.env=4", "4 is no set of settings"),
    ],
)  # fmt: skip
def test_a_limit_that_means_nothing_is_refused(word: str, said: str) -> None:
    """Bug: a mistyped limit is passed over as that of a setting which this run has not."""
    with pytest.raises(UserError, match=said):
        composed(word)


def test_null_is_no_limit_of_its_own_and_what_a_run_has_not_is_passed_over() -> None:
    """Bug: data.limit=null, all rows, stays as it is; or a limit on tokens of a text adds a setting to a log."""
    config = composed("+experiment=logged", "data.path=x", "+at_most.data.limit=7", "+at_most.data.characters=9")
    assert config["data"]["limit"] == 7 and "characters" not in config["data"]
