"""Records a run: metrics at log points, evaluations, samples, and which policy is the best so far."""

from __future__ import annotations

import math
import shlex
import time
from typing import Any

from dqnlm.config.moved import renewed_metrics
from dqnlm.errors import UserError
from dqnlm.metrics import JsonLines, Metrics, NoLines
from dqnlm.training import saved_state
from dqnlm.training.components import Components
from dqnlm.training.diagnostics import diagnostics, warnings
from dqnlm.utils import sharding
from dqnlm.utils.permissions import allowing_flags


class Recorder:
    """Writes `metrics.jsonl` and `samples.jsonl`, the table of each evaluation, and the checkpoint of the best policy.

    Args:
        components: of the run.
        updates_between_logs: gradient steps, for messages.

    Attributes:
        last: the newest value of every figure.
        best: metrics of the best evaluation, with its `step`; {} before the first.
        evaluations_without_gain: since that one.
        wall_seconds: in this run, those before a resume included.
    """

    def __init__(self, components: Components, updates_between_logs: int) -> None:
        self.components, self.updates_between_logs = components, updates_between_logs
        self.best_metric = components.evaluation.best_metric or next(iter(components.evaluator.best_candidates()))
        self.best: Metrics = {}
        self.last: Metrics = {}
        self.evaluations_without_gain = 0
        self.wall_before, self._clock = 0.0, time.monotonic()
        self._mark = (0.0, 0)  # wall seconds and transitions at the last log point
        self._communicated = 0.0  # seconds, at the last log point
        self._sizes: tuple[int | None, int | None] = (None, None)  # of the JSONL files, known after a resume
        self._warned: set[str] = set()

    def open(self) -> None:
        """Opens the files; what a run that was killed wrote after its checkpoint is cut off."""
        if self.components.ranks.is_first:
            self.metrics: JsonLines | NoLines = JsonLines(self.components.directory.metrics, self._sizes[0])
            self.samples: JsonLines | NoLines = JsonLines(self.components.directory.samples, self._sizes[1])
        else:
            self.metrics = self.samples = NoLines()
        for line in self.components.logger.open():
            self.components.console.print(line)
        self._clock = time.monotonic()

    def close(self) -> None:
        for open_file in (self.metrics, self.samples, self.components.logger):
            open_file.close()

    @property
    def wall_seconds(self) -> float:
        return self.wall_before + time.monotonic() - self._clock

    def record(self, metrics: Metrics) -> None:
        """One line of metrics.jsonl, and the same to the logger."""
        components = self.components
        counters = {
            "step": components.updates, "env_steps": components.env_steps,
            "transitions": int(components.learner.transitions), "wall_s": round(self.wall_seconds, 3),
        }  # fmt: skip
        self.last |= metrics
        self.metrics.write(counters | metrics)
        components.logger.write(components.updates, metrics)

    def log(self, rounds_done: int) -> None:
        """The only regular host synchronisation.

        Raises:
            UserError: a figure is not finite.
        """
        components = self.components
        metrics = components.accumulator.pop_means()
        before_s, before = self._mark
        communicated, self._communicated = self._communicated, components.ranks.seconds
        self._mark = (self.wall_seconds, int(components.learner.transitions))
        metrics["time/transitions_per_second"] = (self._mark[1] - before) / max(self._mark[0] - before_s, 1e-9)
        if components.ranks.world > 1:
            spent = (self._communicated - communicated) / max(self._mark[0] - before_s, 1e-9)
            metrics["time/communication_share"] = spent
        metrics["rollout/episodes"] = components.episodes
        metrics["rollout/epsilon"] = components.exploration.epsilon
        metrics["optimizer/lr"] = components.learner.optimization.rate(components.learner.updates)
        metrics |= diagnostics(components)
        metrics |= {} if components.acting is None else components.acting.metrics()
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UserError(self._not_finite(name, value))
        self._warn(metrics)
        self.record(metrics)
        words = [f"{k.split('/')[1] if k != 'rollout/return' else 'return'} {v:.3f}" for k, v in metrics.items()
                 if k.startswith("loss/") or k == "rollout/return"]  # fmt: skip
        components.console.status(rounds_done, ", ".join(words))

    def _warn(self, metrics: Metrics) -> None:
        """Each warning once a run."""
        for key, text in warnings(metrics, self.components.policy.head).items():
            if key not in self._warned:
                self._warned.add(key)
                self.components.console.warning(text)

    def _not_finite(self, name: str, value: float) -> str:
        updates = self.components.updates
        if name.startswith("rollout/"):
            return f"{name} became {value} after {updates} updates: the reward gave a value that is no finite number"
        return (
            f"{name} became {value} between updates {max(0, updates - self.updates_between_logs)} and {updates}: training has "
            "diverged. The last good checkpoint is kept. Try a lower optimizer.lr, a smaller learner.gradient_clip, "
            "head.loss=huber, or learner.precision=float32; to look at the last good state: "
            + shlex.join(["dqnlm", "eval", str(self.components.directory.path), *allowing_flags()])
        )

    def require_finite_weights(self) -> None:
        """A diverged run never replaces a good checkpoint.

        Raises:
            UserError: a weight is not finite.
        """
        weights = (sharding.own_part(p) for p in self.components.learner.network.parameters())
        bad = any(not bool(p.isfinite().all()) for p in weights)
        if self.components.ranks.most(int(bad))[0]:  # perhaps in the part of another rank
            raise UserError(self._not_finite("a weight", float("nan")))

    def evaluate(self, done: str) -> None:
        """Scores the policy, shows and writes what was found; `done` says how far the run is.

        Raises:
            UserError: a weight is not finite, or the evaluator does not give the metric that the best policy is chosen by.
        """
        components = self.components
        self.require_finite_weights()
        with sharding.gathered(components.policy.network):
            metrics, components.policy.temperature = components.ranks.share(lambda: self._evaluated(done))
        self.record(metrics)
        self._note_best(metrics)

    def _evaluated(self, done: str) -> tuple[Metrics, float]:
        """The figures of an evaluation, and the temperature that was fitted in it."""
        components = self.components
        evaluation = components.evaluator.evaluate(components.policy)
        if self.best_metric not in evaluation.metrics:
            raise UserError(
                f"{type(components.evaluator).__name__} declares {self.best_metric}, by which the best policy is chosen, and its "
                "evaluation gives no such figure"
            )
        components.console.print(components.evaluator.table(evaluation, components.policy, components.updates, done))
        components.logger.write_samples(components.updates, list(evaluation.samples))
        for prompt, text in evaluation.samples:
            self.samples.write({"step": components.updates, "kind": components.policy.declared, "prompt": prompt, "text": text})
            components.console.panel("sample", [prompt + text if components.evaluator.shows_prompt else text], "dim")
        return evaluation.metrics, components.policy.temperature

    def _note_best(self, metrics: Metrics) -> None:
        sign = 1 if self.components.evaluator.best_candidates()[self.best_metric] else -1
        value = metrics[self.best_metric]
        if self.best and sign * value <= sign * self.best[self.best_metric]:
            self.evaluations_without_gain += 1
            return
        self.best = {"step": float(self.components.updates)} | metrics
        self.evaluations_without_gain = 0
        self.components.policy.step = self.components.updates
        policy = saved_state.policy_state(self.components)
        if self.components.ranks.is_first:
            self.components.checkpoints.save_best(policy)

    def state_dict(self) -> dict[str, Any]:
        """Counters, the best metrics, and how many bytes of the JSONL files belong to this moment."""
        return {
            "evaluations_without_gain": self.evaluations_without_gain, "best": self.best, "last": self.last,
            "wall_s": self.wall_seconds, "mark": list(self._mark), "sizes": [self.metrics.size, self.samples.size],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluations_without_gain = state["evaluations_without_gain"]
        self.best, self.last = renewed_metrics(state["best"]), renewed_metrics(state["last"])
        self.wall_before, self._mark = state["wall_s"], (state["mark"][0], state["mark"][1])
        self._sizes = (state["sizes"][0], state["sizes"][1])
