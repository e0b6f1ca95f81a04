"""Scripts that study runs (walks_needed, and the `_study` ones): what they compute, and the counts they rest on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from studies import answers_study, fluency_study, runs, walks_needed, wordle_study
from tests.helpers import runs as tools


def test_walks_needed(tmp_path: Path) -> None:
    """Bug: walks of a later log point, an evaluation below the goal, or the last time the goal was reached."""
    records = [
        {"rollout/episodes": 16.0}, {"eval/return": 0.5}, {"rollout/episodes": 35.0}, {"eval/return": 0.99},
        {"rollout/episodes": 50.0}, {"eval/return": 0.8}, {"rollout/episodes": 70.0}, {"eval/return": 1.0},
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert walks_needed.needed(tmp_path) == (35.0, 1.0)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[:2]))
    assert walks_needed.needed(tmp_path) == (None, 0.5)


@pytest.mark.parametrize("overrides", [[], ["env.transition=free"], ["env.transition=free", "env.stop_token=e"]])
def test_episodes_are_counted(overrides: list[str], tmp_path: Path) -> None:
    """Twelve rollouts of four whole episodes; with a stop token an environment begins anew within a rollout: more."""
    text = tools.write_text(tmp_path / "text.txt")
    found = tools.start(tmp_path / "run", text, *overrides)["last"]["rollout/episodes"]
    assert found == 48 or ("env.stop_token=e" in overrides and found > 48)


def test_at_equal_diversity() -> None:
    """Nats on the straight line between the two samples around the wanted distinct-2; the nearest beyond the ends."""
    study = fluency_study
    control = [study.Sampled(0.0, nats, distinct) for nats, distinct in ((2.0, 0.6), (1.0, 0.2), (1.5, 0.4))]
    assert study.at_equal_diversity(control, 0.3) == pytest.approx(1.25)
    assert study.at_equal_diversity(control, 0.55) == pytest.approx(1.875)
    assert study.at_equal_diversity(control, 0.1) == 1.0 and study.at_equal_diversity(control, 0.9) == 2.0


def test_a_study_s_run_is_trained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a run that is there is trained again, one that failed is taken for a result, or its reason is lost."""
    folder = tmp_path / "it's, a run=1"  # Hydra's grammar gives a meaning to each of these characters
    settings = ("+experiment=debug/smoke", "trainer.rollouts=1", "data.characters=20000")
    summary = runs.train(folder, *settings)
    assert summary["status"] == "finished" and (folder.parent / f"{folder.name}.log").exists()
    assert runs.train(folder, "seed=mistaken") == summary
    with pytest.raises(SystemExit, match=r"(?s)exit code 2; the end of .*'abc' is not an integer"):
        runs.train(tmp_path / "other", *settings, "env.horizon=abc")
    (folder / "summary.json").write_text('{"status": "interrupted"}')
    with pytest.raises(SystemExit, match="dqnlm resume"):
        runs.train(folder, *settings)
    assert capsys.readouterr().err.count("training ") == 2


def test_interval_by_students_t() -> None:
    """1, 2, 3: mean 2, deviation 1, half the interval 4.303 / sqrt 3 = 2.484."""
    assert runs.interval([1.0, 2.0, 3.0]) == "+2.000 (-0.484 to +4.484)"
    assert runs.interval([1.5]) == "+1.500 (one seed)"


def test_the_judge_reads_what_was_said_after_its_prompt() -> None:
    """Bug: nats of the prompt, or of the wrong characters. A judge that knows `b` follows everything, with probability .9."""

    class Tokens:
        def encode(self, text: str) -> torch.Tensor:
            return torch.tensor([ord(c) - ord("a") for c in text])

    class Network(torch.nn.Module):
        context = 10

        def forward(self, observation_BS: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.05, 0.9, 0.05]).log().expand(*observation_BS.shape, 3)

    class Judge:
        tokenizer, network = Tokens(), Network()

        def q(self, output: torch.Tensor) -> torch.Tensor:
            return output

    judged = fluency_study.judged(Judge(), ["aaa", "ccc"], ["bb", "ba"])
    nine, five = (-torch.tensor(p).log().item() for p in (0.9, 0.05))
    assert judged == pytest.approx((3 * nine + five) / 4)


def test_a_study_of_answers_gives_the_control_its_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a control that begins elsewhere, or clones for longer or shorter than the agent's rounds took: 7 rounds at 3.5."""
    study, started = answers_study, {}

    def train(folder: Path, *overrides: str) -> dict[str, dict[str, int]]:
        started[folder.name] = set(overrides)
        return {"totals": {"rollouts": 7}}

    monkeypatch.setattr(study, "train", train)
    study.train_all("translation", tmp_path, "4", 3.5, ["reward.scale=2"])
    assert list(started) == ["clone_4", "agent_4", "control_4"]
    for name, overrides in started.items():
        assert {"+experiment=translation", "seed=4", "reward.scale=2"} <= overrides
        assert (f"pretraining.init_from={tmp_path / 'clone_4'}" in overrides) == (name != "clone_4")
    assert "pretraining.updates=25" in started["control_4"] and "trainer.rollouts=0" in started["control_4"]
    assert "pretraining.updates=0" in started["agent_4"] and "trainer.rollouts=0" not in started["agent_4"]


def test_a_study_of_wordle_compares_last_checkpoints_of_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: the greatest evaluation in place of the last, seeds crossed, or players of other games.

    Last returns -2, -3 and -5, -5: differences 3 and 2, mean 2.5, half-width t(1) sd / sqrt 2 = 12.706 * .5 = 6.353.
    """
    study, started = wordle_study, {}
    last = {"agent_0": -2.0, "agent_1": -3.0, "clone_0": -5.0, "clone_1": -5.0, "filtered_0": -4.0, "filtered_1": -4.0}

    def train(folder: Path, *overrides: str) -> None:
        started[folder.name] = overrides
        folder.mkdir(parents=True)
        records = [{"eval/return": -1.0}, {"loss/td": 1.0}, {"eval/return": last[folder.name]}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    monkeypatch.setattr(study, "train", train)
    monkeypatch.setattr(
        "sys.argv", ["wordle_study.py", "--seeds", "0,1", "--output-dir", str(tmp_path), "data.games=50"]
    )
    assert study.main() == 0
    cloning, common = "+experiment=wordle_behaviour_cloning", ("seed=1", "data.games=50")
    assert started["agent_1"] == ("+experiment=wordle", *common)
    assert started["clone_1"] == (cloning, *common)
    assert started["filtered_1"] == (cloning, "data.keep_best=0.1", "trainer.offline_rounds=6000", *common)
    shown = capsys.readouterr().out
    assert "| agent | -2.000, -3.000 | -1.000, -1.000 |" in shown
    assert "agent less clone, last checkpoint, mean and 95 % interval: +2.500 (-3.853 to +8.853)" in shown
    assert "agent less filtered, last checkpoint, mean and 95 % interval: +1.500 (-4.853 to +7.853)" in shown
