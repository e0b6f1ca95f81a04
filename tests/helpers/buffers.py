"""Small buffers and rows for them, and what a batch should hold by plain loops; used by the tests of buffers."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor

from dqnlm.buffers.base import Buffer, Setup
from dqnlm.config.schema import keyword_parameters
from dqnlm.types import DECISION, TERMINATED, Batch, Rows, TaskSpec

T, FIRST, ACTIONS, GAMMA = 6, 2, 50, 0.9
CPU = torch.device("cpu")
AnyBuffer = TypeVar("AnyBuffer", bound=Buffer)


def make(kind: type[AnyBuffer], rows: int = 8, seed: int = 0, **changes: Any) -> AnyBuffer:
    """A buffer for rows of up to T = 6 transitions, the first two without a decision; `changes` to its arguments."""
    facts: dict[str, Any] = {
        "row_transitions": T, "first_decision": FIRST, "num_tokens": ACTIONS, "num_actions": ACTIONS,
        "observation_size": 0, "multi_turn": False, "stores_actions": True, "guesses_per_position": 1, "episode_steps": T,
    }  # fmt: skip
    of_run: dict[str, Any] = {"gamma": GAMMA, "context": T, "lookahead": 1, "logged_rows": 0, "siblings": 1, "burn_in": 0}
    facts = {name: changes.pop(name, value) for name, value in facts.items()}
    of_run = {name: changes.pop(name, value) for name, value in of_run.items()}
    generator = changes.pop("generator", torch.Generator().manual_seed(seed))
    setup = Setup(TaskSpec(**facts), **of_run, device=CPU, generator=generator)
    usual = {"capacity": rows * (T - FIRST), "place": "device"}
    return kind(setup, **{name: usual[name] for name in usual if name in keyword_parameters(kind)} | changes)


def random_rows(
    count: int, seed: int, short: bool = True, end: int = TERMINATED, multi_turn: bool = False, size: int = 0
) -> Rows:
    """A prompt without a decision, then decisions (`multi_turn`: at random, the last step always) up to a random length."""
    g = torch.Generator().manual_seed(seed)
    length_B = torch.randint(FIRST + 1, T + 1, (count,), generator=g) if short else torch.full((count,), T)
    time = torch.arange(T)
    within, last = time < length_B[:, None], time == length_B[:, None] - 1
    own = (torch.rand(count, T, generator=g) < 0.5) | last if multi_turn else torch.ones(count, T, dtype=torch.bool)
    flag_BT = ((time >= FIRST) & within & own) * DECISION + last * end
    seen = torch.arange(T + 1) <= length_B[:, None]
    token_BS = torch.randint(ACTIONS, (count, T + 1), generator=g)
    vector_BSF = torch.randn(count, T + 1, size, generator=g)
    return Rows(
        vector_BSF * seen[..., None] if size else token_BS * seen,
        torch.randint(ACTIONS, (count, T), generator=g) * within,
        torch.rand(count, T, generator=g) * (within & (time >= FIRST)),  # also on a partner's steps
        flag_BT.to(torch.uint8),
        length_B,
    )


def numbered_rows(first: int, count: int) -> Rows:
    """Rows of one length whose observations all are their number."""
    rows = random_rows(count, 0, short=False)
    rows.observation_BS = torch.arange(first, first + count)[:, None].expand(count, T + 1).clone()
    return rows


def numbers(batch: Batch) -> list[int]:
    """Which of `numbered_rows` a batch holds, in its order."""
    return [int(number) for number in batch.observation_BS[:, 0]]


def discount(flag: int) -> float:
    """Of one step that is not padding."""
    return 0.0 if flag & TERMINATED else torch.tensor(GAMMA).item() if flag & DECISION else 1.0


def assert_resumes_exactly(kind: type[Buffer], **changes: Any) -> None:
    """After a part of a run, its state put into another buffer: the rest of the run draws the same, several times."""
    ring, other = make(kind, seed=1, **changes), make(kind, seed=2, **changes)
    error_g = torch.Generator().manual_seed(0)

    def one_rollout(each: Buffer, seed: int, progress: float) -> list[Batch]:
        each.add(random_rows(6, seed))
        each.begin()
        each.advance(progress)
        batches = []
        for _ in range(3):
            batches.append(each.sample(5))
            error_BT = torch.randn(5, batches[-1].mask_BT.shape[1] - batches[-1].first, generator=error_g)
            each.update_priorities(batches[-1], error_BT)
        return batches

    for turn in range(3):
        one_rollout(ring, turn, turn / 10)
    state = copy.deepcopy(ring.state_dict())
    assert all(isinstance(x, Tensor) for x in state.values())
    other.load_state_dict(state)
    for turn in range(3):
        found = []
        for each in (ring, other):
            error_g.manual_seed(turn)
            # In the middle of an epoch, and before `advance`, too.
            found.append([each.sample(2), *one_rollout(each, turn + 7, 0.5)])
        for one, two in zip(*found, strict=True):
            for name, value in vars(one).items():
                same = torch.equal(value, vars(two)[name]) if isinstance(value, Tensor) else value == vars(two)[name]
                assert same, name
