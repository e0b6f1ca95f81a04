"""Runs on several rewards of one log: learned at once, weighed when they act, from the command line to a resumed run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dqnlm import cli, load_policy
from dqnlm.builder import launch
from dqnlm.errors import UserError
from dqnlm.networks.base import QNetwork
from tests.helpers import runs as tools
from tests.system.test_logged import LEARNING, run, settings

NAMES = "data.rewards=[reward_a,reward_b]"


def write_log(path: Path, rows: int = 400) -> Path:
    """A bandit: a prompt of two digits, an answer of one letter. reward_a pays a 1 and b .6, reward_b pays c 1 and b .6.

    The log answers x, which nobody likes, half of the time, a and c a fifth each and b a tenth.
    """
    draw, found = random.Random(0), []
    for number in range(rows):
        answer = draw.choices("xacb", [5, 2, 2, 1])[0]
        paid = {"reward_a": {"a": 1.0, "b": 0.6}.get(answer, 0.0), "reward_b": {"c": 1.0, "b": 0.6}.get(answer, 0.0)}
        found.append({"prompt": f"{number % 80:02}:", "completion": answer, **paid})
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    log = write_log(folder / "log.jsonl")
    run(folder / "run", settings(log, NAMES, *LEARNING, "policy.beta=16", "objective.conservative.weight=0.01"))
    return folder / "run"


def written(folder: Path, **weights: float) -> set[str]:
    """Greedy answers to four prompts with these weights."""
    policy = load_policy(folder, "last")
    policy.weights = {"reward_a": 0.0, "reward_b": 0.0} | weights
    return {policy.generate(f"{number}:", 4, policy="greedy")[0] for number in (10, 23, 47, 61)}


def test_the_best_answer_follows_the_weights(trained: Path) -> None:
    """One run answers a for reward_a, c for reward_b, b for both (.6 + .6 above 1), and what the log says most for none.

    Bug: one reward in the place of the other, or weights that only training reads. With the seeds 1 to 5 of log and run the
    answers were these each time.
    """
    assert written(trained, reward_a=1) == {"a"} and written(trained, reward_b=1) == {"c"}
    assert written(trained, reward_a=1, reward_b=1) == {"b"} and written(trained) == {"x"}


def test_commands_take_the_weights(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: an option that is read and not used; figures of other weights than those typed."""

    def call(*words: str) -> str:
        capsys.readouterr()
        assert cli.main(list(words)) == 0
        return capsys.readouterr().out

    generate = ["generate", str(trained), "--prompt", "10:", "--policy", "greedy", "--max-tokens", "4"]
    assert call(*generate, "--weights", "reward_a=1") == "10:a\n" and call(*generate, "--weights", "reward_b=2") == "10:c\n"
    assert call(*generate) == "10:b\n"  # policy.weights=null: both alike
    found = [json.loads(call("eval", str(trained), "--json", "--weights", words)) for words in ("reward_a=1", "reward_b=1")]
    assert [one["weights"] for one in found] == [{"reward_a": 1.0, "reward_b": 0.0}, {"reward_a": 0.0, "reward_b": 1.0}]
    assert all(one["eval/return_correlation"] > 0.9 for one in found)
    page = trained.parent / "page.html"
    call("inspect", str(trained), "--text", "10:a", "--output", str(page))
    assert "V is an output of the network" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("reward_c=1", "reward_c is no reward of this run; it learned reward_a, reward_b"),
        ("reward_a", "is no NAME=NUMBER"),
        ("reward_a=-1", "must be finite and at least 0"),
    ],
)
def test_weights_that_are_refused(trained: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a traceback, or a typing error that silently weighs nothing."""
    for command in (["generate", str(trained)], ["eval", str(trained)]):
        assert cli.main([*command, "--weights", words]) == 2
        assert message in capsys.readouterr().err


def test_a_run_on_one_reward_has_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path / "log.jsonl")
    run(tmp_path / "run", settings(log, "data.reward_weights={reward_a: 1, reward_b: 1}"))
    assert cli.main(["generate", str(tmp_path / "run"), "--weights", "reward_a=1"]) == 2
    assert "this run learned one reward" in capsys.readouterr().err


PRIORITIES = ["buffer=prioritized", "buffer.sample=transitions", "algorithm=double_dqn", "head.loss=huber"]


@pytest.mark.parametrize("more", [[], PRIORITIES], ids=["ilql", "dqn"])
def test_such_a_run_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    """Bug: the second reward of the ring, an output or its target is not saved, or rows are drawn otherwise."""
    log = write_log(tmp_path / "log.jsonl")
    checked = settings(log, NAMES, "policy.weights={reward_a: 1, reward_b: 0.25}", *more)
    run(tmp_path / "whole", checked)
    with monkeypatch.context() as patched:
        tools.at_rollout(patched, 5, tools.kill)
        with pytest.raises(tools.Killed):
            run(tmp_path / "killed", checked)
    launch.resume(tmp_path / "killed", [])
    tools.assert_same_run(tmp_path / "killed", tmp_path / "whole")
    policy = load_policy(tmp_path / "whole")
    assert policy.weights == {"reward_a": 1.0, "reward_b": 0.25}
    assert {name.partition("_")[0] for name in policy.network.projections} >= {"q"} and "q_b" in policy.network.projections


def test_any_head_learns_several_rewards(tmp_path: Path) -> None:
    """Bug: bounds of one reward clamp the other, or a distribution that is read as a number."""
    log = write_log(tmp_path / "log.jsonl")
    for words in (["algorithm=qr_dqn"], ["algorithm=c51"], ["algorithm=double_dqn", "head.loss=logistic"], ["algorithm=mc_q"]):
        summary = run(tmp_path / words[-1], settings(log, NAMES, "data.reward_scaling=none", *words))
        assert summary["status"] == "finished" and summary["last"]["eval/nll"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algorithm=behaviour_cloning"], "objective cross_entropy clones actions into q"),
        (["algorithm=soft_q"], "bootstrap=soft is the value of one reward's own soft policy"),
        (["algorithm=filtered_behaviour_cloning"], "data.keep_best=0.1 keeps the best rows by one reward"),
        (["policy.weights={reward_c: 1}"], "policy.weights: reward_c is no reward of this run"),
        (["algorithm=double_dqn", "network.tie_weights=true", "head.loss=huber"], "there are several Q-functions"),
    ],
)
def test_what_cannot_be_added_up_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    log = write_log(tmp_path / "log.jsonl")
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", settings(log, NAMES, *words))


def test_answers_are_judged_by_each_reward(tmp_path: Path) -> None:
    """Bug: the mixture's own weights score answers that were chosen by others, or parts are not told."""
    file = tmp_path / "judges.py"
    file.write_text(
        "def a(prompts, completions, references):\n    return [{'a': 1.0, 'b': 0.6}.get(text, 0.0) for text in completions]\n"
        "def b(prompts, completions, references):\n    return [{'c': 1.0, 'b': 0.6}.get(text, 0.0) for text in completions]\n"
    )
    function: dict[str, Any] = {
        "_target_": "dqnlm.rewards.function.FunctionReward", "weight": 1.0, "per_token": False, "low": 0.0, "high": 1.0,
        "scale": 1.0, "clip": None, "increments": False,
    }  # fmt: skip
    parts = {f"reward_{name}": function | {"path": f"{file}:{name}"} for name in "ab"}
    log = write_log(tmp_path / "log.jsonl")
    chosen = "policy.weights={reward_a: 2, reward_b: 0}"
    allowed = ["reward=mixture", f"+allow_targets=[{file}]"]
    checked = settings(log, NAMES, *LEARNING, chosen, "policy.beta=16", "objective.conservative.weight=0.01", *allowed)
    checked["reward"]["parts"] = parts
    found = run(tmp_path / "run", checked)["last"]
    assert found["eval/return"] == 2.0 and found["eval/return_reward_a"] == 1.0 and found["eval/return_reward_b"] == 0.0


def test_outputs_are_named_after_rewards(trained: Path) -> None:
    """Bug: nobody can tell which output belongs to which reward."""
    network: QNetwork = load_policy(trained).network
    assert set(network.projections) == {"policy", "q_a", "q_b", "q2_a", "q2_b", "v_a", "v_b"}
