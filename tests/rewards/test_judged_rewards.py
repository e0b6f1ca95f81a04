"""Rewards that pay when an episode is over: in the environment, in the rows of the buffer, in the evaluation, in a mixture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.builder import launch
from dqnlm.errors import UserError
from dqnlm.rewards.base import Episodes, SequenceReward, without_prompt
from dqnlm.rewards.exact_match import ExactMatch
from dqnlm.rewards.mixture import Mixture
from dqnlm.runs.directory import RunDirectory
from dqnlm.tasks.rewards import build_reward
from dqnlm.types import DECISION, Bounds, Rows
from tests.helpers import runs as tools
from tests.helpers.environments import A, continuation, given, random_actions


class Telling(SequenceReward):
    """Pays each decision 1000 x last prompt token + 10 x reference token there + action; shows which episode it was given."""

    def __init__(self) -> None:
        super().__init__(A)
        self.calls: list[Episodes] = []

    @property
    def bounds(self) -> Bounds:
        return Bounds(0.0, 1011.0 * A)

    def judge(self, episodes: Episodes) -> Tensor:
        self.calls.append(episodes)
        B, H = episodes.action_BH.shape
        prompt_B1 = torch.zeros(B, 1)
        if episodes.prompt_BP.shape[1]:
            prompt_B1 = episodes.prompt_BP.gather(1, episodes.prompt_length_B[:, None] - 1).float()
        reward_BH = 1000 * prompt_B1 + 10 * episodes.reference_BR[:, :H] + episodes.action_BH
        return torch.where(torch.arange(H) < episodes.length_B[:, None], reward_BH, 0.0).float()


@pytest.mark.parametrize("transition", ["free", "teacher"])
@pytest.mark.parametrize("horizon_end", ["terminate", "truncate"])
def test_whole_rows_by_hand(transition: str, horizon_end: str) -> None:
    """Window 1 2 3 4 5, prompt 1 2, so the references are 3 4 5. Actions inside the prompt are not said: 7 9 is 7 at time 1."""
    env = continuation(
        torch.arange(1, 6), Telling, num_envs=2, prompt_length=2, horizon=3, transition=transition, horizon_end=horizon_end
    )  # fmt: skip
    env.reset()
    action_NE = torch.tensor([[8, 8], [7, 0], [9, 1], [6, 2]])
    steps = [env.step(action_E) for action_E in action_NE]
    assert all(step.sequence_reward_ET is None and not step.reward_E.any() for step in steps[:-1])
    assert steps[-1].sequence_reward_ET is not None and not steps[-1].reward_E.any()
    assert steps[-1].sequence_reward_ET.tolist() == [[0, 2037, 2049, 2056], [0, 2030, 2041, 2052]]
    if transition == "teacher":
        assert env.score_actions(action_NE.T).reward_BT.tolist() == steps[-1].sequence_reward_ET.tolist()


def test_stop_token_by_hand() -> None:
    """Copies end at their own times and are judged then, alone; what was said in the episode before is forgotten.

    Window 1 2 3 4 5, prompt 1 2; 7 stops. The first stops at once, twice; the second says 9 and stops; the third goes on to
    the horizon. Judged: 2000 + 10 x reference + action.
    """
    env = continuation(torch.arange(1, 6), Telling, stop=7, num_envs=3, prompt_length=2, horizon=3)
    env.reset()
    actions = [[0, 7, 7], [7, 9, 8], [0, 7, 8], [7, 6, 8], [0, 6, 8]]
    judged = [env.step(torch.tensor(action)).sequence_reward_ET for action in actions]
    assert judged[0] is None and judged[4] is None
    found = [part.tolist() for part in judged[1:4] if part is not None]
    nothing = [0, 0, 0, 0]
    assert found[0] == [[0, 2037, 0, 0], nothing, nothing]
    assert found[1] == [nothing, [0, 2039, 2047, 0], nothing]
    assert found[2] == [[0, 2037, 0, 0], nothing, [0, 2038, 2048, 2058]]
    calls = env.reward.calls  # type: ignore[attr-defined]
    assert [call.length_B.tolist() for call in calls] == [[1], [2], [1, 3]]
    assert calls[2].action_BH.tolist() == [[7, 0, 0], [8, 8, 8]]


@pytest.mark.parametrize("options", [{}, {"stop": 2}], ids=["together", "apart"])
@pytest.mark.parametrize("before", [0, 5, 13])
def test_state_holds_what_was_said(options: dict[str, Any], before: int) -> None:
    """Guards a resumed episode that is judged by other words than those said, and a saved state that a step changes."""
    env = continuation(reward=Telling, horizon=9, **options)
    action_NE = random_actions(env, before + 30)
    env.reset()
    for action_E in action_NE[:before]:
        env.step(action_E)
    state = env.state_dict()
    expected = [env.step(action_E) for action_E in action_NE[before:]]
    other = continuation(reward=Telling, horizon=9, seed=5, **options)
    other.reset()
    other.load_state_dict(state)
    for step, action_E in zip(expected, action_NE[before:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(given(step), given(other.step(action_E)), strict=True))
    assert sum(step.sequence_reward_ET is not None for step in expected) >= 2


@pytest.fixture
def trainer(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A tiny trainer whose environment is judged by a mixture of `Telling` and exact match."""
    text = tools.write_text(tmp_path / "text.txt")
    overrides = ["env.transition=free", "env.prompt_length=3", "head.loss=huber", "env.horizon=5", *request.param]
    checked, _ = tools.settings(tools.tiny(text, *overrides))
    (tmp_path / "run").mkdir()
    built = launch.build(checked, RunDirectory(tmp_path / "run"))
    env = built.components.actor.env
    parts = iter([Telling(), ExactMatch(env.spec.num_actions, match=1.0, mismatch=0.0)])
    env.reward = Mixture(env.spec.num_actions, lambda _: next(parts), parts={"told": {"weight": 1}, "exact": {"weight": -2}})
    return built


STOPS = ["env.stop_token=e", "trainer.rollout_steps=11", "trainer.learning_starts=2000"]


@pytest.mark.parametrize("trainer", [[], STOPS], ids=["together", "apart"], indirect=True)
def test_rows_returns_and_parts_of_the_actor(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards rows that keep the rewards given step by step, returns that count both, and a log of parts of other decisions.

    Under `free` a row tells all that was said, but not the reference; what is left of a reward after 1000 x last prompt
    token and the action is 10 x reference - 2 [action = reference].
    """
    actor, rows, returns = trainer.components.actor, [], []

    def add(new: Rows, keep_B: Tensor | None = None) -> None:
        keep_B = torch.ones_like(new.length_B, dtype=torch.bool) if keep_B is None else keep_B
        rows.extend(zip(*(field[keep_B].clone() for field in vars(new).values()), strict=True))

    monkeypatch.setattr(actor.buffer, "add", add)
    monkeypatch.setattr(actor.buffer, "finished", lambda return_E, end_E: returns.extend(return_E[end_E].tolist()))
    trainer.components.exploration.advance(0.0, 0.0)
    for _ in range(4):
        actor.rollout()
    assert len(rows) >= 16 and len({int(row[4]) for row in rows}) == (1 if actor.env.spec.lockstep else 5)
    matches, decisions = 0, 0
    for observation_S, action_T, reward_T, flag_T, length in rows:
        decided_T = (flag_T & DECISION) != 0
        assert not reward_T[~decided_T].any() and int(decided_T.nonzero()[-1]) == int(length) - 1
        left = reward_T[decided_T] - 1000 * observation_S[2] - action_T[decided_T]
        match = left % 10 != 0
        reference = (left + 2 * match) / 10
        assert torch.equal(match, action_T[decided_T] == reference) and bool(((reference >= 0) & (reference < A)).all())
        matches, decisions = matches + int(match.sum()), decisions + int(decided_T.sum())
    assert returns == pytest.approx([float(row[2].sum()) for row in rows])
    figures = actor.accumulator.pop_means()
    assert figures["reward/exact"] == pytest.approx(matches / decisions) and matches > 0
    assert figures["rollout/return"] == pytest.approx(sum(returns) / len(returns))


@pytest.mark.parametrize("trainer", [[], STOPS], ids=["together", "apart"], indirect=True)
def test_the_best_constant_is_judged_too(trainer: Any) -> None:
    """Guards a table that says that nothing can be earned by one character. The same episodes through a plain loop."""
    evaluator = trainer.components.evaluator

    def make_env(make: Any = evaluator.make_env) -> Any:
        env = make()
        env.reward = Telling()
        return env

    evaluator.make_env = make_env
    for token in (0, 3):
        env, expected = make_env(), 0.0
        env.reset()
        open_E = set(range(env.num_envs))
        while open_E:
            step = env.step(torch.full((env.num_envs,), token))
            for e in [e for e in open_E if step.row_end_E[e]]:
                open_E.remove(e)
                expected += float(step.sequence_reward_ET[e].sum())
        assert evaluator._constant_return(token) == pytest.approx(expected / env.num_envs) and expected > 0


def test_a_mixture_is_judged_where_a_part_is() -> None:
    """Guards a sum that lacks the incremental part, its rewards behind the end, and parts of an earlier episode in the log."""
    made = iter([Telling(), ExactMatch(A, match=1.0, mismatch=-1.0)])
    mixture = Mixture(A, lambda _: next(made), parts={"told": {"weight": 0.5}, "exact": {"weight": 100}})
    assert mixture.sequence_level and not mixture.knows_all_actions and mixture.state_dict() == {}
    action_BH, reference_BH = torch.tensor([[4, 5, 0], [1, 2, 3]]), torch.tensor([[4, 6, 0], [1, 1, 3]])
    episodes = Episodes(torch.tensor([[2], [3]]), torch.ones(2).long(), action_BH, torch.tensor([2, 3]), reference_BH,
                        torch.tensor([3, 3]))  # fmt: skip
    told = [[2044, 2065, 0], [3011, 3012, 3033]]
    assert mixture.judge(episodes).tolist() == [[1122.0, 932.5, 0], [1605.5, 1406.0, 1616.5]]
    assert mixture.parts()["told"].tolist() == told and mixture.parts()["exact"].tolist() == [[1, -1, 0], [1, -1, 1]]
    assert mixture.step(torch.tensor([1, 2])).tolist() == [0, 0] and mixture.parts() == {}
    plain = mixture.row(action_BH, reference_BH) - mixture.judge(without_prompt(action_BH, reference_BH))
    assert not plain.any()
    wider = episodes._replace(reference_BR=torch.cat([reference_BH, reference_BH], 1))
    for other in (wider, episodes._replace(reference_length_B=torch.tensor([3, 2]))):
        with pytest.raises(UserError, match=r"reward\.parts\.exact .* edit_distance"):
            mixture.judge(other)
    with pytest.raises(NotImplementedError, match="token-level reward"):
        ExactMatch(A, match=1.0, mismatch=0.0).judge(episodes)


def test_the_builder_hands_rewards_what_they_name() -> None:
    """Guards the pool: by name, through mixtures, and a clear word where a run has not what a reward asks for."""
    pool: dict[str, Any] = {"num_actions": A, "eos_id": None, "tokenizer": None}
    length = {"_target_": "dqnlm.rewards.text_statistics.Length", "target": 4, "scale": 2.0, "clip": None, "increments": False}
    mixture = {"_target_": "dqnlm.rewards.mixture.Mixture", "parts": {"long": {**length, "weight": -3.0}}}
    reward = build_reward(mixture, pool)
    assert reward.sequence_level and reward.num_actions == A and reward.bounds == (-6.0, 0.0)
    lexicon = {key: value for key, value in length.items() if key != "target"} | {
        "_target_": "dqnlm.rewards.text_statistics.Lexicon"
    }
    with pytest.raises(UserError, match="needs 'train_ids', which this run has not"):
        build_reward(lexicon, pool)


def test_bounds_reach_the_head() -> None:
    """A judged reward per token sums over the horizon; cut at the horizon but valued onwards it has no end."""
    assert continuation(reward=Telling).return_bounds(1.0) == (0.0, 4 * 1011.0 * A)
    assert continuation(reward=Telling, horizon_end="truncate").return_bounds(1.0).high == math.inf
