"""Everything that a run does once, in small, before its first update: what would fail at its end fails now.

Two environments (or one group) are played and rewarded, a few rows are learned from, two answers are evaluated, and the whole
state is saved and loaded; the loaded state is that of before, bit for bit, so a run with and without this is the same run.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dqnlm.agent.actor import Actor
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator
from dqnlm.runs import checkpoint
from dqnlm.training import saved_state
from dqnlm.training.components import Components
from dqnlm.types import Batch, Rows
from dqnlm.utils import streams

_MOST_STEPS = 64  # of an environment without an end that is known
_ROWS = 8  # of logged data


class _Sink:
    """Keeps the rows that are played."""

    def __init__(self) -> None:
        self.rows: list[Rows] = []

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        kept_B = slice(None) if keep_B is None else keep_B
        self.rows.append(Rows(**{name: value[kept_B].clone() for name, value in vars(rows).items()}))

    def finished(self, return_E: Tensor, episode_end_E: Tensor) -> None:
        pass


def preflight(components: Components, best_metric: str) -> None:
    """Tries all parts of a run that has not begun; nothing of it is left but what is kept outside the run's parts.

    Args:
        components: of the run.
        best_metric: by which the best policy is chosen.

    Raises:
        UserError: what would have been raised later.
    """
    with tempfile.TemporaryDirectory(prefix=".preflight-", dir=components.directory.path) as folder:
        store = checkpoint.Checkpoints(Path(folder), keep_last=1)
        path = store.save(0, saved_state.policy_state(components), saved_state.training_state(components, {}))
        try:
            _try(components, best_metric)
        except UserError as error:
            found = "found by trying all parts in small, before the first update: trainer.preflight"
            raise UserError(f"{error}\n  ({found})") from error
        finally:
            cpu = torch.device("cpu")
            policy, training = (checkpoint.load(path, part, cpu) for part in ("policy", "training"))
            saved_state.restore(components, policy, training)
            components.learner.last_update = None


def _try(components: Components, best_metric: str) -> None:
    batch = _batch(components)
    if batch is not None:
        components.learner.update(batch)
    task, context = components.task, components.context
    evaluator = task.small_evaluator(
        replace(components.evaluation, episodes=2, samples=1, sample_tokens=8, betas=components.evaluation.betas[:1]),
        q_is_return=False, learns_returns=context.learns_returns,
    )  # fmt: skip
    evaluation = evaluator.evaluate(components.policy)
    if best_metric not in evaluation.metrics:
        raise UserError(
            f"{type(evaluator).__name__} declares {best_metric}, by which the best policy is chosen, and its evaluation gives no "
            "such figure"
        )


def _batch(components: Components) -> Batch | None:
    """A few rows to learn from; None where playing a little has not finished any."""
    spec = components.task.spec
    if components.logged_rows:
        batch = components.buffer.deliver(components.buffer.sample(min(_ROWS, components.context.batch_size)))
    else:
        rows = _play(components)
        if rows is None:
            return None
        batch = Batch.from_rows(rows, components.context.gamma, spec.first_decision)
    return batch.trim() if spec.variable_length else batch


def _play(components: Components) -> Rows | None:
    """Rows of a small environment of its own; None where no row ended."""
    if components.actor is None:
        return None
    task, context = components.task, components.context
    siblings = context.samples_per_prompt
    count = None if context.copies > 1 else (siblings if siblings > 1 else 2)
    env, sink = task.make_env(streams.seed_of(0, streams.ENV), num_envs=count), _Sink()
    known = env.spec.teacher_forced or env.spec.lockstep
    steps = None if known else min(env.spec.episode_steps or _MOST_STEPS, _MOST_STEPS)
    Actor(env, components.policy, components.exploration, sink, Accumulator(env.device)).rollout(steps)
    kept = [rows for rows in sink.rows if len(rows.length_B)]
    if not kept:
        return None
    return Rows(**{name: torch.cat([getattr(rows, name) for rows in kept]) for name in vars(kept[0])})
