"""The rows that an actor writes, against a plain loop, with a network whose choices tell what it has read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dqnlm.agent.actor import Actor
from dqnlm.agent.exploration import Greedy
from dqnlm.agent.policy import Policy
from dqnlm.envs.base import StepEnvironment, TeacherForced
from dqnlm.evaluation.episodes import play_greedily
from dqnlm.heads.scalar import Scalar
from dqnlm.metrics import Accumulator
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Bounds, Rows, TaskSpec, TimeStep
from tests.helpers.tasks import task_spec

A, ROW, LENGTHS = 7, 3, (5, 2, 3)  # actions; transitions of a row; steps of the episodes in each environment


class Reader(nn.Module):
    """Prefers the action (observation + number of observations read since the row's beginning) modulo A, then those below it."""

    receptive_field = None

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def _output(self, place_X: Tensor) -> dict[str, Tensor]:
        self.modes.append(self.training)
        behind_XA = (place_X[..., None] - torch.arange(A)) % A
        return {"q": -behind_XA[..., None].float()}

    def forward(self, observation_BS: Tensor, first: int = 0) -> dict[str, Tensor]:
        return self._output((observation_BS + torch.arange(1, observation_BS.shape[1] + 1))[:, first:])

    def initial_state(self, num_envs: int, device: Any) -> dict[str, Tensor]:
        return {"read": torch.zeros(num_envs, dtype=torch.int64)}

    def step(self, observation_E: Tensor, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        state = {"read": state["read"] + 1}
        return self._output(observation_E + state["read"]), state

    def reset(self, state: dict[str, Tensor], mask_E: Tensor) -> dict[str, Tensor]:
        return {"read": state["read"].masked_fill(mask_E, 0)}


def observation(env: int, episode: int, step: int) -> int:
    return 100 * env + 10 * episode + step


def illegal(seen: int) -> int:
    """The one action that may not be chosen after an observation."""
    return (3 * seen + 1) % A


class Counting(StepEnvironment):
    """Episodes of fixed lengths, cut into rows; the observation names environment, episode and step; the reward the action."""

    num_envs, device = len(LENGTHS), torch.device("cpu")
    spec = task_spec(A, num_tokens=1000, row_transitions=ROW, episode_steps=max(LENGTHS), truncates=True)

    def reset(self) -> Tensor:
        self.at = [(0, 0)] * self.num_envs
        return torch.tensor([observation(e, 0, 0) for e in range(self.num_envs)])

    def legal(self, observation_BS: Tensor) -> Tensor:
        return torch.arange(A) != ((3 * observation_BS + 1) % A)[..., None]

    def step(self, action_E: Tensor) -> TimeStep:
        seen, follows, flags, row_ends, ends = [], [], [], [], []
        for e, (episode, step) in enumerate(self.at):
            step += 1
            over, full = step == LENGTHS[e], step % ROW == 0
            seen.append(observation(e, episode, step))
            flags.append(DECISION | (TERMINATED if over else TRUNCATED if full else 0))
            self.at[e] = (episode + 1, 0) if over else (episode, step)
            follows.append(observation(e, *self.at[e]))
            row_ends.append(over or full)
            ends.append(over)
        return TimeStep(
            torch.tensor(seen), action_E + 1.0, torch.tensor(flags, dtype=torch.uint8), torch.tensor(row_ends),
            torch.tensor(follows), torch.tensor(ends),
        )  # fmt: skip

    def return_bounds(self, gamma: float) -> Bounds:
        return Bounds(0.0, 100.0)

    @property
    def reward_bounds(self) -> Bounds:
        return Bounds(0.0, 8.0)

    def state_dict(self) -> dict[str, Any]:
        return {"at": list(self.at)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = list(state["at"])


class Sink:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.returns: list[float] = []

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        kept = range(len(rows.length_B)) if keep_B is None else keep_B.nonzero().flatten().tolist()
        for b in kept:
            fields = (rows.observation_BS, rows.action_BT, rows.reward_BT, rows.flag_BT)
            self.rows.append((*(x[b].tolist() for x in fields), int(rows.length_B[b])))

    def finished(self, return_E: Tensor, episode_end_E: Tensor) -> None:
        self.returns += return_E[episode_end_E].tolist()


def actor_of(env: Any) -> tuple[Actor, Sink, Reader]:
    network, sink = Reader(), Sink()
    head = Scalar(Bounds(-10.0, 0.0), False, loss="squared", initial_return=None)
    policy = Policy(network, head, None, None, "boltzmann", 1.0)  # type: ignore[arg-type]
    return Actor(env, policy, Greedy(torch.Generator()), sink, Accumulator(torch.device("cpu"))), sink, network


def by_loop(steps: int) -> tuple[list[tuple[Any, ...]], list[float]]:
    """The rows and returns of all environments, one at a time, in the order in which they end."""
    ended: list[tuple[int, int, tuple[Any, ...]]] = []
    returns: list[tuple[int, int, float]] = []
    for e, length in enumerate(LENGTHS):
        episode = step = 0
        total, row = 0.0, ([observation(e, 0, 0)], [], [], [])
        for time in range(steps):
            seen, read = row[0][-1], len(row[0])
            action = next(a for a in ((seen + read - k) % A for k in range(A)) if a != illegal(seen))
            step, total = step + 1, total + action + 1
            over, full = step == length, step % ROW == 0
            row[0].append(observation(e, episode, step))
            row[1].append(action)
            row[2].append(action + 1.0)
            row[3].append(DECISION | (TERMINATED if over else TRUNCATED if full else 0))
            if over:
                returns.append((time, e, total))
                episode, step, total = episode + 1, 0, 0.0
            if over or full:
                width = len(row[1])
                padded = [list(x) + [0] * (ROW - width) for x in row]
                ended.append((time, e, (*padded, width)))
                row = ([observation(e, episode, step)], [], [], [])
    return [found for *_, found in sorted(ended)], [total for *_, total in sorted(returns)]


@pytest.mark.parametrize("rollouts", [[12], [1, 4, 2, 5], [1] * 12])
def test_rows_of_environments_that_are_played_step_by_step(rollouts: list[int]) -> None:
    """Bug: the first observation of the next episode as a successor, an unfinished row, marks of the old row in the new one,
    legal actions of another observation, a state that goes on over a row's end, or that is lost between two rollouts."""
    actor, sink, network = actor_of(Counting())
    for steps in rollouts:
        network.train()  # as an update leaves it
        actor.rollout(steps)
    rows, returns = by_loop(12)
    assert sink.rows == rows and sink.returns == returns and len(rows) > 8
    assert not any(network.modes), "no dropout while acting"
    assert actor.env_steps == 36 and int(actor.episodes) == len(returns)
    means = actor.accumulator.pop_means()
    assert means["rollout/return"] == pytest.approx(sum(returns) / len(returns))
    assert means["rollout/length"] == pytest.approx((2 * 5 + 6 * 2 + 4 * 3) / 12)


class Window(TeacherForced):
    """Two texts, each read by two copies; the prompt is two tokens, and the reward counts the position."""

    num_envs, device = 4, torch.device("cpu")
    spec: TaskSpec = task_spec(
        A, row_transitions=4, episode_steps=4, first_decision=1, guesses_per_position=2, teacher_forced=True, lockstep=True
    )
    text_ES = torch.tensor([[1, 5, 2, 6, 3], [4, 0, 3, 3, 1]]).repeat_interleave(2, 0)

    def reset(self) -> Tensor:
        return self.text_ES[:, 0]

    def teacher_forced_observations(self) -> Tensor:
        return self.text_ES

    def legal(self, observation_BS: Tensor) -> Tensor:
        return torch.arange(A) != ((3 * observation_BS + 1) % A)[..., None]

    def score_actions(self, action_ET: Tensor) -> Rows:
        flag_ET = torch.full_like(action_ET, DECISION, dtype=torch.uint8)
        return Rows(self.text_ES, action_ET, action_ET + 1.0, flag_ET, torch.full((4,), 4))

    def return_bounds(self, gamma: float) -> Bounds:
        return Bounds(0.0, 100.0)

    @property
    def reward_bounds(self) -> Bounds:
        return Bounds(0.0, 8.0)


def test_actions_on_a_text_that_goes_on_as_it_is() -> None:
    """Bug: Q of the token to come, of another copy's text, legal actions one step off, or actions for the prompt."""
    actor, sink, network = actor_of(Window())
    network.train()
    actor.rollout()
    for row, text in zip(sink.rows, Window.text_ES.tolist(), strict=True):
        chosen = []
        for time in range(1, 4):
            likes = ((text[time] + time + 1 - k) % A for k in range(A))
            chosen.append(next(a for a in likes if a != illegal(text[time])))
        assert row[1] == [text[1], *chosen] and row[2] == [a + 1.0 for a in row[1]]
    assert not any(network.modes) and actor.env_steps == 12 and int(actor.episodes) == 4
    assert sink.returns == [sum(row[2]) for row in sink.rows]


def test_an_evaluation_plays_greedily() -> None:
    """Bug: an evaluation that explores, so that its figures are those of another policy. The first row of each environment."""
    actor, *_ = actor_of(Counting())
    collector = play_greedily(Counting(), actor.policy, 1.0)
    first = {row[0][0] // 100: row for row in reversed(by_loop(12)[0])}  # the earliest of each environment
    assert sorted(collector.texts()) == sorted(row[1][: row[4]] for row in first.values())
