"""Everything that a run does once, in small, before its first update: what would fail at its end fails now.

Two environments (or one group) are played and rewarded, a few rows are learned from, two answers are evaluated, and the whole
state is saved and loaded; the loaded state is that of before, bit for bit, so a run with and without this is the same run.
What was tried is timed too (`training.measuring`), which gives the length of the run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

import torch

from dqnlm.errors import UserError
from dqnlm.runs import checkpoint
from dqnlm.training import measuring, saved_state
from dqnlm.training.components import Components
from dqnlm.training.costs import Costs
from dqnlm.types import Batch, Rows

_ROWS = 8  # of logged data


def preflight(
    components: Components, best_metric: str, costs: Costs, updates_per_round: int, rollout_steps: int | None,
    learning_starts: int,
) -> None:
    """Tries all parts of a run that has not begun; nothing of it is left but what is kept outside the run's parts.

    Args:
        components: of the run.
        best_metric: by which the best policy is chosen.
        costs: of the run; gets what is measured.
        updates_per_round, rollout_steps, learning_starts: of the run.

    Raises:
        UserError: what would have been raised later.
    """
    with tempfile.TemporaryDirectory(prefix=".preflight-", dir=components.directory.path) as folder:
        store, began = checkpoint.Checkpoints(Path(folder), keep_last=1), perf_counter()
        path = store.save(0, saved_state.policy_state(components), saved_state.training_state(components, {}))
        saving_s = perf_counter() - began
        try:
            rows = _try(components, best_metric)
            measuring.measure(components, costs, rows, updates_per_round, rollout_steps, learning_starts)
            costs.checkpoint.expected = saving_s * _growth(components, path)
        except UserError as error:
            found = "found by trying all parts in small, before the first update: trainer.preflight"
            raise UserError(f"{error}\n  ({found})") from error
        finally:
            cpu = torch.device("cpu")
            policy, training = (checkpoint.load(path, part, cpu) for part in ("policy", "training"))
            saved_state.restore(components, policy, training)
            components.learner.last_update = None
            if components.pretraining is not None:
                components.pretraining.learner.last_update = None


def _growth(components: Components, path: Path) -> float:
    """How many times as large as the first checkpoint, without moments and mostly without rows, the later ones are."""
    size = sum(file.stat().st_size for file in path.iterdir())
    learned = sum(p.numel() for p in components.learner.network.parameters() if p.requires_grad)
    buffer = components.buffer
    ring = 0 if components.logged_rows else buffer.rows * buffer.storage.row_transitions * buffer.bytes_per_transition
    return max((learned * 4 * (3 + components.learner.target.copies) + ring / 2) / max(size, 1), 1.0)


def _try(components: Components, best_metric: str) -> Rows | None:
    """Tries all parts; the rows that were played, if any."""
    rows = None
    if components.actor is not None and not components.logged_rows:
        rows, _ = measuring.played(components, measuring.least_envs(components), None)
    batch = _batch(components, rows)
    if batch is not None:
        components.learner.update(batch)
    evaluator = measuring.small_evaluator(components, 0.0)
    evaluation = evaluator.evaluate(components.policy)
    if best_metric not in evaluation.metrics:
        raise UserError(
            f"{type(evaluator).__name__} declares {best_metric}, by which the best policy is chosen, and its evaluation gives no "
            "such figure"
        )
    return rows


def _batch(components: Components, rows: Rows | None) -> Batch | None:
    """A few rows to learn from; None where playing a little has not finished any."""
    spec = components.task.spec
    if components.logged_rows:
        batch = components.buffer.deliver(components.buffer.sample(min(_ROWS, components.context.batch_size)))
    elif rows is None:
        return None
    else:
        batch = Batch.from_rows(rows, components.context.gamma, spec.first_decision)
    return batch.trim() if spec.variable_length else batch
