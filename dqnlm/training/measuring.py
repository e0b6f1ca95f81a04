"""Measures in small, before the first update, what a run will take: updates, acting, an evaluation.

An update is timed as it is; a rollout as it is where a bound says that this is over in moments, else with few environments; an
evaluation on two shares of what it is made on. What was not done is extrapolated along a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from statistics import median
from time import perf_counter

import torch

from dqnlm.agent.actor import Actor
from dqnlm.evaluation.base import Evaluator
from dqnlm.metrics import Accumulator
from dqnlm.training.components import Components
from dqnlm.training.costs import Costs
from dqnlm.training.phases import Phase
from dqnlm.types import Batch, Rows
from dqnlm.utils import streams

MOST_STEPS = 64  # of an environment that is played in small and has no end that is known
AT_ONCE_S = 3.0  # a rollout that is bound to be over by then is timed as it is
REPEATED_S = 1.0  # an update is repeated so long
MOST_UPDATES = 20
FEW = 8  # environments of the second measurement
SHARES = (1 / 16, 1 / 4)  # of an evaluation
SECOND_S = 5.0  # an evaluation of the first share that took longer is followed by the least one, not by one of the second


class Sink:
    """Keeps the rows that are played."""

    def __init__(self) -> None:
        self.rows: list[Rows] = []

    def add(self, rows: Rows, keep_B: torch.Tensor | None = None) -> None:
        kept_B = slice(None) if keep_B is None else keep_B
        self.rows.append(Rows(**{name: value[kept_B].clone() for name, value in vars(rows).items()}))

    def finished(self, return_E: torch.Tensor, episode_end_E: torch.Tensor) -> None:
        pass


def played(components: Components, envs: int | None, steps: int | None) -> tuple[Rows | None, float]:
    """Rows of a new environment with so many copies (None: the run's number), and the seconds of playing them.

    `steps`: of each, where it is played step by step; None there: as many as an episode has, `MOST_STEPS` at most.
    """
    env, sink = components.task.make_env(streams.seed_of(0, streams.ENV), num_envs=envs), Sink()
    known = env.spec.teacher_forced or env.spec.lockstep
    steps = None if known else steps or min(env.spec.episode_steps or MOST_STEPS, MOST_STEPS)
    actor = Actor(env, components.policy, components.exploration, sink, Accumulator(env.device))
    seconds = _seconds(components, lambda: actor.rollout(steps))
    kept = [rows for rows in sink.rows if len(rows.length_B)]
    if not kept:
        return None, seconds
    return Rows(**{name: torch.cat([getattr(rows, name) for rows in kept]) for name in vars(kept[0])}), seconds


def least_envs(components: Components) -> int | None:
    """Copies of the smallest environment that can be played; None: those of the run alone."""
    siblings = components.context.samples_per_prompt
    return None if components.context.copies > 1 else (siblings if siblings > 1 else 2)


def measure(
    components: Components, costs: Costs, rows: Rows | None, updates_per_round: int, steps: int | None, learning_starts: int
) -> None:
    """Sets what `costs` expects of rounds and evaluations; the state of the run is changed.

    Args:
        rows: some that were played; None where nothing is played, or no row has ended.
        steps: of a rollout, where it is played step by step.
        learning_starts: environment steps before the first update of a phase with rollouts.
    """
    for phase in costs.phases:
        batch = _batch_of(components, phase, rows)
        update = 0.0 if batch is None else _update_seconds(components, phase, batch)
        acting = 0.0 if phase.rollout is None or components.actor is None else _rollout_seconds(components, steps)
        learns = 1.0 if phase.rollout is None else _share_that_learns(components, phase, steps, learning_starts)
        costs.rounds[phase.name].expected = updates_per_round * update * learns + acting
    costs.evaluating.expected, costs.once = _evaluation_seconds(components)


def _share_that_learns(components: Components, phase: Phase, steps: int | None, learning_starts: int) -> float:
    """Share of the rounds of a phase with rollouts that have updates."""
    if components.logged_rows:
        return 1.0
    played_in_one = components.env.num_envs * (steps or components.episode_decisions)
    return max(1.0 - max(ceil(learning_starts / played_in_one) - 1, 0) / phase.rounds, 0.0)


def _batch_of(components: Components, phase: Phase, rows: Rows | None) -> Batch | None:
    """A batch of the phase's size; None where there is nothing to make one of."""
    if phase.rollout is None or components.logged_rows:
        return phase.sampler.sample()
    if rows is None:
        return None
    count, spec = components.context.batch_size, components.task.spec
    place_B = torch.arange(count, device=rows.length_B.device) % len(rows.length_B)
    batch = Batch.from_rows(Rows(**{name: value[place_B] for name, value in vars(rows).items()}), components.context.gamma,
                            spec.first_decision)  # fmt: skip
    batch = replace(batch, copies=spec.guesses_per_position)  # equal observations are read once, as in a batch of the buffer
    return batch.trim() if spec.variable_length else batch


def _update_seconds(components: Components, phase: Phase, batch: Batch) -> float:
    """Of one update; the first makes the optimizer's state and does not count, unless it is slow."""
    first = _seconds(components, lambda: phase.learner.update(batch))
    if first > AT_ONCE_S:
        return first
    times: list[float] = []
    while len(times) < MOST_UPDATES and sum(times) < REPEATED_S:
        times.append(_seconds(components, lambda: phase.learner.update(batch)))
    return median(times)


def _rollout_seconds(components: Components, steps: int | None) -> float:
    env = components.env
    least, known = least_envs(components), env.spec.teacher_forced or env.spec.lockstep
    whole = 1 if known else steps or env.spec.row_transitions
    if least is None or env.num_envs <= least:
        return played(components, None, whole)[1]
    short = min(whole, MOST_STEPS)
    few_s = played(components, least, short)[1]
    if few_s * env.num_envs / least * whole / short < AT_ONCE_S:
        return played(components, None, whole)[1]
    more = min(ceil(FEW / least) * least + least, env.num_envs)
    return _on_line((least, few_s), (more, played(components, more, short)[1]), env.num_envs) * whole / short


def _evaluation_seconds(components: Components) -> tuple[float, float]:
    """Of an evaluation, and of what the first one computes once."""
    points: list[tuple[float, float]] = []
    once: list[tuple[float, float]] = []
    shares = list(SHARES)
    for share in shares:
        evaluator = small_evaluator(components, share)
        once.append((share, _seconds(components, evaluator.prepare)))
        points.append((share, _seconds(components, lambda: evaluator.evaluate(components.policy))))  # noqa: B023
        if share == SHARES[0] and points[-1][1] > SECOND_S:
            shares[1] = 0.0
    points.sort()
    once.sort()
    return _on_line(points[0], points[1], 1.0), _on_line(once[0], once[1], 1.0)


def small_evaluator(components: Components, share: float) -> Evaluator:
    """The run's evaluator on a share of its data, episodes and tokens; with 0 the least that it can be made on."""
    whole, context = components.evaluation, components.context
    settings = replace(
        whole, episodes=min(max(2, ceil(share * whole.episodes)), whole.episodes),
        sample_tokens=min(max(8, ceil(share * whole.sample_tokens)), whole.sample_tokens),
    )  # fmt: skip
    return components.task.small_evaluator(settings, share, q_is_return=False, learns_returns=context.learns_returns)


def _on_line(first: tuple[float, float], second: tuple[float, float], x: float) -> float:
    """The value at x of the line through two points of which no value falls."""
    slope = max(second[1] - first[1], 0.0) / (second[0] - first[0])
    return second[1] + slope * (x - second[0])


def _seconds(components: Components, work: Callable[[], object]) -> float:
    began, device = perf_counter(), components.accumulator.device
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter() - began
