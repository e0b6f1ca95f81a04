"""The loop.

    repeat  rollout: the actor plays the environments with exploration          -> rows into the buffer
                     (not in the first rounds of a run on logged data: its rows are there)
            update:  sample rows, targets from the target network, one step     -> repeated
            now and then: evaluate, log, save

Between two log points nothing is copied from the device to the host.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from dqnlm import saved_state
from dqnlm.actor import Actor
from dqnlm.buffers.base import Buffer
from dqnlm.checkpoint import Checkpoints
from dqnlm.console import RunConsole
from dqnlm.diagnostics import diagnostics, warnings
from dqnlm.episodes import EpisodeEvaluator
from dqnlm.errors import UserError
from dqnlm.evaluator import TextEvaluator
from dqnlm.exploration import Exploration
from dqnlm.files import write_json_atomic
from dqnlm.guards import Stopped, listening_to_signals, naming_memory
from dqnlm.learner import Learner
from dqnlm.metrics import Accumulator, Figures, JsonLines, Logger
from dqnlm.policy import Policy
from dqnlm.run_directory import RunDirectory

Evaluator = TextEvaluator | EpisodeEvaluator
LOWER_IS_BETTER = ("eval/nats", "eval/nats_softmax")


@dataclass
class Parts:
    """What a run is made of; the builder fills it in."""

    directory: RunDirectory
    console: RunConsole
    logger: Logger
    policy: Policy
    actor: Actor
    exploration: Exploration
    buffer: Buffer
    learner: Learner
    evaluator: Evaluator
    accumulator: Accumulator
    checkpoints: Checkpoints
    fingerprint: str  # of the data: a run resumes only on what it was trained on
    episode_decisions: int  # of one environment, for schedules that count episodes
    logged_rows: int  # rows of logged data that the buffer began with
    notes: list[str] = field(default_factory=list)  # kept in the summary

    @property
    def by_episodes(self) -> bool:
        """Whether evaluations are episodes alone, without a text."""
        return isinstance(self.evaluator, EpisodeEvaluator)


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
        progress: bool,
    ) -> None:
        self.parts, self.batch_rows, self.rollout_steps = parts, batch_rows, rollout_steps
        # A round is a rollout and its updates; the first `offline_rounds` have no rollout.
        self.rollouts, self.offline_rounds = offline_rounds + rollouts, offline_rounds
        self.updates_per_rollout, self.learning_starts = updates_per_rollout, learning_starts
        self.log_every, self.evaluate_every = log_every, evaluate_every
        self.save_every, self.save_seconds = save_every, None if save_minutes is None else save_minutes * 60
        self.best_metric = best_metric or ("eval/return" if parts.by_episodes else "eval/accuracy")
        self.patience = early_stopping_evaluations
        # Read by the builder: rollout_steps, keep_last, declared_policy, beta, betas, samples, sample_*, evaluation_episodes,
        # init_from and progress belong to the parts that are handed in.
        self.rollouts_done, self.evaluations_without_gain = 0, 0
        self.wall_before, self._clock = 0.0, time.monotonic()
        self.best: Figures = {}
        self.last: Figures = {}
        self._mark = (0.0, 0)  # wall seconds and transitions at the last log point
        self._sizes: tuple[int | None, int | None] = (None, None)  # of the JSONL files, known after a resume
        self._stop_signal: int | None = None
        self._warned: set[str] = set()
        self._saved_at, self._saved_clock = -1, time.monotonic()

    def train_once(self) -> None:
        """One rollout, and the updates that follow it. The whole algorithm."""
        parts, progress = self.parts, self.rollouts_done / self.rollouts
        if self.rollouts_done >= self.offline_rounds:
            episodes = parts.actor.env_steps // (parts.actor.env.num_envs * parts.episode_decisions)
            played = (self.rollouts_done - self.offline_rounds) / (self.rollouts - self.offline_rounds)
            parts.exploration.advance(played, episodes)
            parts.actor.rollout()
            parts.buffer.begin()
        parts.buffer.advance(progress)
        if parts.logged_rows or parts.actor.env_steps >= self.learning_starts:
            for _ in range(self.updates_per_rollout):
                batch = parts.buffer.sample(self.batch_rows)
                error_BT = parts.learner.update(batch)
                parts.buffer.update_priorities(batch, error_BT)
        self.rollouts_done += 1

    def run(self) -> dict[str, Any]:
        """Trains to the end, or until stopped; returns the summary.

        Raises:
            UserError: the loss is not finite, a checkpoint could not be written, or memory ran out.
            Stopped: SIGTERM or Ctrl-C; everything is saved.
        """
        parts = self.parts
        self.metrics = JsonLines(parts.directory.metrics, self._sizes[0])
        self.samples = JsonLines(parts.directory.samples, self._sizes[1])
        self._clock = time.monotonic()
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
            for open_file in (self.metrics, self.samples, parts.logger):
                open_file.close()
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
            self.train_once()
            parts.console.advance(self.rollouts_done)
            end = self.rollouts_done == self.rollouts
            if self.rollouts_done % self.log_every == 0 or end:
                self._log()
            if self.rollouts_done % self.evaluate_every == 0 or end:
                self._evaluate()
            if self._is_time_to_save() or end:
                self._save()
        if self._is_out_of_patience():
            parts.console.print(f"early stop: {self.patience} evaluations without a better {self.best_metric}")
        if self._saved_at != self.rollouts_done:
            self._save()

    def _is_out_of_patience(self) -> bool:
        return self.patience is not None and self.evaluations_without_gain >= self.patience

    def _note_signal(self, number: int) -> None:
        if self._stop_signal is not None:
            raise KeyboardInterrupt
        self._stop_signal = number
        # Not by the console: the signal may have come in the middle of its printing.
        os.write(2, b"\nstopping after this rollout (once more to stop without saving) ...\n")

    @property
    def wall_seconds(self) -> float:
        """Seconds in this run, those before a resume included."""
        return self.wall_before + time.monotonic() - self._clock

    def _record(self, figures: Figures) -> None:
        """One line of metrics.jsonl, and the same to the logger."""
        parts = self.parts
        counters = {
            "step": parts.learner.updates, "env_steps": parts.actor.env_steps,
            "transitions": int(parts.learner.transitions), "wall_s": round(self.wall_seconds, 3),
        }  # fmt: skip
        self.last |= figures
        self.metrics.write(counters | figures)
        parts.logger.write(parts.learner.updates, figures)

    def _log(self) -> None:
        """The only regular host synchronisation."""
        parts = self.parts
        figures = parts.accumulator.drain()
        before_s, before = self._mark
        self._mark = (self.wall_seconds, int(parts.learner.transitions))
        figures["time/transitions_per_second"] = (self._mark[1] - before) / max(self._mark[0] - before_s, 1e-9)
        figures["rollout/epsilon"] = parts.exploration.epsilon
        figures["optimizer/lr"] = parts.learner.optimization.rate(parts.learner.updates)
        figures |= diagnostics(parts)
        for name, value in figures.items():
            if not math.isfinite(value):
                raise UserError(self._not_finite(name, value))
        self._warn(figures)
        self._record(figures)
        words = [f"{k.split('/')[1] if k != 'rollout/return' else 'return'} {v:.3f}" for k, v in figures.items()
                 if k.startswith("loss/") or k == "rollout/return"]  # fmt: skip
        parts.console.status(self.rollouts_done, ", ".join(words))

    def _warn(self, figures: Figures) -> None:
        """Each warning once a run."""
        for key, text in warnings(figures, self.parts.policy.head).items():
            if key not in self._warned:
                self._warned.add(key)
                self.parts.console.warning(text)

    @property
    def rounds(self) -> str:
        """What a round is called."""
        return "rounds" if self.offline_rounds else "rollouts"

    def _not_finite(self, name: str, value: float) -> str:
        steps = f"updates {max(0, self.parts.learner.updates - self.log_every * self.updates_per_rollout)}"
        return (
            f"{name} became {value} between {steps} and {self.parts.learner.updates}: training has diverged. The last good "
            f"checkpoint is kept. Try a lower optimizer.lr, a smaller learner.gradient_clip, head.loss=huber, or "
            f"learner.precision=float32; to look at the last good state: dqnlm eval {self.parts.directory.path}"
        )

    def _evaluate(self) -> None:
        parts = self.parts
        self._require_finite_weights()
        evaluation = parts.evaluator.evaluate(parts.policy)
        figures = evaluation.figures
        done = f"{self.rollouts_done}/{self.rollouts} {self.rounds}"
        parts.console.print(parts.evaluator.table(evaluation, parts.policy, parts.learner.updates, done))
        for prompt, text in evaluation.samples:
            record = {"step": parts.learner.updates, "kind": parts.policy.declared, "prompt": prompt, "text": text}
            self.samples.write(record)
            parts.console.panel("sample", [prompt + text if parts.by_episodes else text], "dim")
        self._record(figures)
        self._note_best(figures)

    def _note_best(self, figures: Figures) -> None:
        sign = -1 if self.best_metric in LOWER_IS_BETTER else 1
        value = figures[self.best_metric]
        if self.best and sign * value <= sign * self.best[self.best_metric]:
            self.evaluations_without_gain += 1
            return
        self.best = {"step": float(self.parts.learner.updates)} | figures
        self.evaluations_without_gain = 0
        self.parts.policy.step = self.parts.learner.updates
        self.parts.checkpoints.save_best(saved_state.policy_state(self.parts))

    def _is_time_to_save(self) -> bool:
        by_count = self.save_every is not None and self.rollouts_done % self.save_every == 0
        by_clock = self.save_seconds is not None and time.monotonic() - self._saved_clock >= self.save_seconds
        return by_count or by_clock

    def _save(self) -> None:
        """Everything, if the weights are finite; a diverged run never replaces a good checkpoint."""
        parts = self.parts
        self._require_finite_weights()
        parts.policy.step = parts.learner.updates
        parts.checkpoints.save(parts.learner.updates, saved_state.policy_state(parts), saved_state.training_state(self))
        self._saved_at, self._saved_clock = self.rollouts_done, time.monotonic()

    def _require_finite_weights(self) -> None:
        if not all(bool(p.isfinite().all()) for p in self.parts.learner.network.parameters()):
            raise UserError(self._not_finite("a weight", float("nan")))

    def state_dict(self) -> dict[str, Any]:
        """Counters, the best figures, and how many bytes of the JSONL files belong to this moment."""
        return {
            "rollouts_done": self.rollouts_done, "evaluations_without_gain": self.evaluations_without_gain,
            "best": self.best, "last": self.last, "wall_s": self.wall_seconds, "mark": list(self._mark),
            "sizes": [self.metrics.size, self.samples.size],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rollouts_done = self._saved_at = state["rollouts_done"]
        self.evaluations_without_gain = state["evaluations_without_gain"]
        self.best, self.last = state["best"], state["last"]
        self.wall_before, self._mark = state["wall_s"], (state["mark"][0], state["mark"][1])
        self._sizes = (state["sizes"][0], state["sizes"][1])

    def _summary(self, status: str) -> dict[str, Any]:
        parts = self.parts
        totals = {
            "rollouts": self.rollouts_done, "updates": parts.learner.updates, "env_steps": parts.actor.env_steps,
            "transitions": int(parts.learner.transitions), "wall_s": round(self.wall_seconds, 1),
        }  # fmt: skip
        return {"status": status, "last": self.last, "best": self.best, "totals": totals, "notes": parts.notes}
