"""The loop.

    repeat  rollout: the actor plays the environments with exploration          -> rows into the buffer
                     (not in the first rounds of a run on logged data: its rows are there)
            update:  sample rows, targets from the target network, one step     -> repeated
            now and then: evaluate, log, save

A warm start comes before it: the same network clones the text's own answers. Between two log points nothing is copied
from the device to the host.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any, Literal

from dqnlm.training import saved_state
from dqnlm.training.components import Parts
from dqnlm.training.recorder import Journal
from dqnlm.types import Batch
from dqnlm.utils.failures import naming_memory
from dqnlm.utils.files import write_json_atomic
from dqnlm.utils.signals import Stopped, listening_to_signals


class Trainer:
    """Runs `Parts` for a number of rollouts. Settings: configs/trainer/."""

    def __init__(
        self,
        parts: Parts,
        *,
        rollouts: int,
        offline_rounds: int,
        rollout_steps: int | None,
        batch_rows: int,
        updates_per_rollout: int,
        learning_starts: int,
        warm_start_updates: int,
        warm_start_lr: float | None,
        warm_start_rows: int | None,
        demonstration_share: float,
        log_every: int,
        evaluate_every: int,
        save_every: int | None,
        save_minutes: float | None,
        keep_last: int,
        best_metric: str | None,
        early_stopping_evaluations: int | None,
        declared_policy: Literal["boltzmann", "probability", "reweighted"],
        beta: float | None,
        betas: list[float],
        samples: int,
        sample_tokens: int,
        sample_temperature: float,
        evaluation_episodes: int,
        init_from: str | None,
        init_scale: float,
        progress: bool,
    ) -> None:
        self.parts, self.batch_rows = parts, batch_rows
        # A round is a rollout and its updates; those of the warm start, and then the offline ones, have no rollout.
        self.warm_rounds = math.ceil(warm_start_updates / updates_per_rollout)
        self.before_rollouts = self.warm_rounds + offline_rounds
        self.rollouts = self.before_rollouts + rollouts
        self.updates_per_rollout, self.learning_starts = updates_per_rollout, learning_starts
        self.log_every, self.evaluate_every = log_every, evaluate_every
        self.save_every, self.save_seconds = save_every, None if save_minutes is None else save_minutes * 60
        self.patience = early_stopping_evaluations
        # Read by the builder: rollout_steps, warm_start_lr, warm_start_rows, demonstration_share, keep_last, declared_policy,
        # beta, betas, samples, sample_*, evaluation_episodes, init_from, init_scale and progress belong to the parts that are
        # handed in.
        self.journal = Journal(parts, best_metric, log_every * updates_per_rollout)
        self.rollouts_done = 0
        self._stop_signal: int | None = None
        self._saved_at, self._saved_clock = -1, time.monotonic()

    def train_once(self) -> None:
        """One rollout, and the updates that follow it. The whole algorithm."""
        parts = self.parts
        if self.rollouts_done >= self.before_rollouts:
            assert parts.actor is not None, "refused before: a run that plays has something to play"
            episodes = parts.env_steps // (parts.env.num_envs * parts.episode_decisions)
            played = (self.rollouts_done - self.before_rollouts) / (self.rollouts - self.before_rollouts)
            parts.exploration.advance(played, episodes)
            parts.actor.rollout()
            parts.buffer.begin()
        parts.buffer.advance((self.rollouts_done - self.warm_rounds) / (self.rollouts - self.warm_rounds))
        if parts.logged_rows or parts.env_steps >= self.learning_starts:
            for _ in range(self.updates_per_rollout):
                batch = self._sample()
                error_BT = parts.learner.update(batch)
                parts.buffer.update_priorities(batch, error_BT)
        self.rollouts_done += 1

    def _sample(self) -> Batch:
        """Experience; of each batch a share from the text's own answers, where that is set."""
        demonstrations = self.parts.demonstrations
        mixed = 0 if demonstrations is None else demonstrations.num_rows(self.batch_rows)
        batch = self.parts.buffer.sample(self.batch_rows - mixed)
        if demonstrations is not None:
            batch = batch.concat(demonstrations.batch(mixed, judged=True))
        return batch.trim() if self.parts.task.spec.variable_length else batch

    def _warm_up(self) -> None:
        """One round of the warm start; after the last, target and reference policy begin where it ended."""
        warm_start = self.parts.warm_start
        assert warm_start is not None
        if warm_start.advance(self.updates_per_rollout):
            self.parts.learner.sync_target_and_reference()
        self.rollouts_done += 1

    def run(self) -> dict[str, Any]:
        """Trains to the end, or until stopped; returns the summary.

        Raises:
            UserError: the loss is not finite, a checkpoint could not be written, or memory ran out.
            Stopped: SIGTERM or Ctrl-C; everything is saved.
        """
        parts = self.parts
        self.journal.open()
        status = "failed"
        try:
            with listening_to_signals(self._note_signal), naming_memory():
                self._loop()
            status = "interrupted" if self._stop_signal is not None else "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            summary = self._close(status)
        if self._stop_signal is not None:
            parts.console.print(f"stopped and saved; go on with: dqnlm resume {parts.directory.path}")
            raise Stopped(128 + self._stop_signal)
        return summary

    def _close(self, status: str) -> dict[str, Any]:
        """Writes the summary and closes all files. What goes wrong here never hides the error that ended the run."""
        parts = self.parts
        parts.console.stop_progress()
        summary = self._summary(status)
        try:
            write_json_atomic(parts.directory.summary, summary)
            self.journal.close()
        except OSError as error:
            if status != "failed":
                raise
            parts.console.warning(f"could not write {parts.directory.summary.name} either: {error.strerror}")
        return summary

    def _loop(self) -> None:
        parts = self.parts
        parts.console.start_progress(self.rollouts_done, self.rollouts, self.rounds)
        if self._saved_at != self.rollouts_done:
            self._save()
        while self.rollouts_done < self.rollouts and self._stop_signal is None and not self._is_out_of_patience():
            self._warm_up() if self.rollouts_done < self.warm_rounds else self.train_once()
            parts.console.advance(self.rollouts_done)
            end = self.rollouts_done == self.rollouts
            if self.rollouts_done % self.log_every == 0 or end:
                self.journal.log(self.rollouts_done)
            if self.rollouts_done % self.evaluate_every == 0 or end or self.rollouts_done == self.warm_rounds:
                self.journal.evaluate(f"{self.rollouts_done}/{self.rollouts} {self.rounds}")
            if self._is_time_to_save() or end:
                self._save()
        if self._is_out_of_patience():
            parts.console.print(f"early stop: {self.patience} evaluations without a better {self.journal.best_metric}")
        if self._saved_at != self.rollouts_done:
            self._save()

    def _is_out_of_patience(self) -> bool:
        return self.patience is not None and self.journal.evaluations_without_gain >= self.patience

    def _note_signal(self, number: int) -> None:
        if self._stop_signal is not None:
            raise KeyboardInterrupt
        self._stop_signal = number
        # Not by the console: the signal may have come in the middle of its printing.
        os.write(2, b"\nstopping after this rollout (once more to stop without saving) ...\n")

    @property
    def rounds(self) -> str:
        """What a round is called."""
        return "rounds" if self.before_rollouts else "rollouts"

    def _is_time_to_save(self) -> bool:
        by_count = self.save_every is not None and self.rollouts_done % self.save_every == 0
        by_clock = self.save_seconds is not None and time.monotonic() - self._saved_clock >= self.save_seconds
        return by_count or by_clock

    def _save(self) -> None:
        """Everything, if the weights are finite."""
        parts = self.parts
        self.journal.require_finite_weights()
        parts.policy.step = parts.updates
        training = saved_state.training_state(parts, self.state_dict())
        parts.checkpoints.save(parts.updates, saved_state.policy_state(parts), training)
        self._saved_at, self._saved_clock = self.rollouts_done, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Where the loop stands, and its journal."""
        return {"rollouts_done": self.rollouts_done, "journal": self.journal.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rollouts_done = self._saved_at = state["rollouts_done"]
        self.journal.load_state_dict(state["journal"])

    def _summary(self, status: str) -> dict[str, Any]:
        parts, journal = self.parts, self.journal
        totals = {
            "rollouts": self.rollouts_done, "updates": parts.updates, "env_steps": parts.env_steps,
            "transitions": int(parts.learner.transitions), "wall_s": round(journal.wall_seconds, 1),
        }  # fmt: skip
        return {
            "status": status, "last": journal.last, "best": journal.best, "best_metric": journal.best_metric,
            "totals": totals, "notes": parts.notes,
        }  # fmt: skip
