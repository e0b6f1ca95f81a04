"""The training loop.

    for each phase (pretraining by cloning, offline rounds on logged data, online rounds), for each of its rounds:
        act with exploration                                  -> finished rows go to the replay buffer     (online)
        repeat: sample a batch, update the network and its target, report the errors as priorities
        now and then: evaluate, log, save

Between two log points nothing is copied from the device to the host.
"""

from __future__ import annotations

import os
import time
from typing import Any

from dqnlm.training import saved_state
from dqnlm.training.build_phases import build_phases
from dqnlm.training.closing import closing_lines
from dqnlm.training.components import Components
from dqnlm.training.costs import Costs, estimate_line
from dqnlm.training.phases import Phase
from dqnlm.training.preflight import preflight
from dqnlm.training.recorder import Recorder
from dqnlm.utils import sharding
from dqnlm.utils.failures import explain_memory_error
from dqnlm.utils.files import write_json_atomic
from dqnlm.utils.permissions import resume_command
from dqnlm.utils.signals import Stopped, listening_to_signals


class Trainer:
    """Runs the phases of a run.

    Args:
        components: of the run.
        rollouts: rounds of the online phase, each with a rollout.
        offline_rounds: rounds of updates on logged data before it.
        rollout_steps: decisions of each environment in a rollout; None for whole episodes.
        batch_size: rows in a batch.
        demonstration_fraction: share of each batch that is demonstrations.
        updates_per_rollout: gradient steps in a round.
        learning_starts: environment steps before the first update of the online phase.
        log_every: rounds between two log points.
        preflight: before the first update, all parts are tried in small (`training.preflight`); of one process alone.
    """

    def __init__(
        self,
        components: Components,
        *,
        rollouts: int,
        offline_rounds: int,
        rollout_steps: int | None,
        batch_size: int,
        demonstration_fraction: float,
        updates_per_rollout: int,
        learning_starts: int,
        log_every: int,
        preflight: bool,
    ) -> None:
        if rollouts and components.make_acting is not None:
            components.acting = components.make_acting(rollout_steps)
        self.components, self.batch_size, self.updates_per_rollout = components, batch_size, updates_per_rollout
        self.phases = build_phases(
            components, rollouts, offline_rounds, batch_size, demonstration_fraction, updates_per_rollout,
            learning_starts,
        )  # fmt: skip
        self.total_rounds, self.log_every = self.phases[-1].end, log_every
        self.recorder = Recorder(components, log_every * updates_per_rollout)
        self.rounds_done, self.preflight, self.rollout_steps = 0, preflight, rollout_steps
        self.learning_starts = learning_starts
        self.costs = Costs(self.phases, components.evaluation, components.saving)
        self._owes_evaluation = False  # one that was due has failed
        self._stop_signal: int | None = None
        self._heard = 0.0  # when, by the monotonic clock
        self._saved_at, self._saved_clock = -1, time.monotonic()

    def train_round(self, phase: Phase) -> None:
        """One round of a phase: the whole algorithm."""
        if phase.rollout is not None:  # act with exploration; finished rows go to the replay buffer
            with sharding.gathered(self.components.policy.network):  # environments of two ranks may ask it differently often
                phase.rollout(phase.progress(self.rounds_done))
        phase.sampler.advance(self.rounds_done)  # anneal the schedules of the buffer
        for _ in range(phase.num_updates()):  # learn from sampled rows
            batch = phase.sampler.sample()
            error_BT = phase.learner.update(batch)  # also moves the target network
            phase.sampler.update_priorities(batch, error_BT)
        self.rounds_done += 1
        if phase.finish is not None and self.rounds_done == phase.end:
            phase.finish()

    def run(self) -> dict[str, Any]:
        """Trains to the end, or until stopped; returns the summary.

        Raises:
            UserError: the loss is not finite, a checkpoint could not be written, or memory ran out.
            Stopped: SIGTERM or Ctrl-C; everything is saved.
        """
        components = self.components
        self.recorder.open()
        status = "failed"
        try:
            with listening_to_signals(self._note_signal), explain_memory_error(), components.ranks.explaining_losses():
                self._loop()
            status = "interrupted" if self._stop_signal is not None else "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            summary = self._close(status)
        if self._stop_signal is not None:
            components.console.print(f"stopped and saved; go on with: {resume_command(components.directory.path)}")
            raise Stopped(128 + self._stop_signal)
        for line in closing_lines(components, summary, {phase.name: phase.rounds for phase in self.phases}):
            components.console.print(line)
        return summary

    def _close(self, status: str) -> dict[str, Any]:
        """Writes the summary and closes all files. What goes wrong here never hides the error that ended the run."""
        components = self.components
        components.console.stop_progress()
        if components.acting is not None:
            components.acting.close()
        summary = self._summary(status)
        try:
            if components.ranks.is_first:
                write_json_atomic(components.directory.summary, summary)
            self.recorder.close()
        except OSError as error:
            if status != "failed":
                raise
            components.console.warning(f"could not write {components.directory.summary.name} either: {error.strerror}")
        return summary

    def _loop(self) -> None:
        components = self.components
        if self.is_measured:
            preflight(
                components, self.recorder.best_metric, self.costs, self.updates_per_rollout, self.rollout_steps,
                self.learning_starts,
            )  # fmt: skip
            components.console.print(estimate_line(self.costs.left(0), self.recorder.wall_seconds))
        components.console.start_progress(self.rounds_done, self.total_rounds, self.rounds)
        if self._saved_at != self.rounds_done:
            self._save()
        if self._owes_evaluation:
            self._evaluate()
        while self.rounds_done < self.total_rounds and not self._is_stopped() and not self._is_out_of_patience():
            phase = self.phase
            with self.costs.timed(self.costs.rounds[phase.name]):
                self.train_round(phase)
            end = self.rounds_done == self.total_rounds
            left = self.costs.left(self.rounds_done)
            components.console.advance(self.rounds_done, None if left is None else left.seconds)
            if self.rounds_done % self.log_every == 0 or end:
                began = time.perf_counter()
                self.recorder.log(self.rounds_done)  # waits for the device
                self.costs.rounds[phase.name].lengthen(time.perf_counter() - began)
            pretrained = phase.name == "pretraining" and self.rounds_done == phase.end
            if self.rounds_done % components.evaluation.every == 0 or end or pretrained:
                self._evaluate()
            due = components.saving.is_due(self.rounds_done, time.monotonic() - self._saved_clock) or end
            if any(components.ranks.most(int(due))):
                self._save()
        if self._is_out_of_patience():
            patience, best = components.evaluation.patience, self.recorder.best_metric
            components.console.print(f"early stop: {patience} evaluations without a better {best}")
        if self._saved_at != self.rounds_done:
            self._save()

    def _evaluate(self) -> None:
        """Evaluates; where that fails, what was learned is saved first, and the evaluation is owed by the resumed run."""
        self._owes_evaluation = True
        try:
            with self.costs.timed(self.costs.evaluating):
                self.recorder.evaluate(f"{self.rounds_done}/{self.total_rounds} {self.rounds}")
        except Exception:
            if self._saved_at != self.rounds_done and self.components.ranks.world == 1:
                self._save()
            raise
        self._owes_evaluation = False

    def _is_stopped(self) -> bool:
        """Whether a signal came, to any rank."""
        signal = self.components.ranks.most(self._stop_signal or 0)[0]
        if signal:  # one that came to this rank meanwhile is kept for the next round
            self._stop_signal = signal
        return bool(signal)

    def _is_out_of_patience(self) -> bool:
        patience = self.components.evaluation.patience
        return patience is not None and self.recorder.evaluations_without_gain >= patience

    @property
    def is_measured(self) -> bool:
        """Whether the run begins with the preflight, which measures what it will take."""
        return self.preflight and self.rounds_done == 0 and self.components.ranks.world == 1

    @property
    def phase(self) -> Phase:
        """The phase of the next round."""
        return next(phase for phase in self.phases if self.rounds_done < phase.end)

    def _note_signal(self, number: int) -> None:
        if self._stop_signal is not None:
            # Several processes are told by the terminal and again by what started them: twice in a moment is once.
            if self.components.ranks.world > 1 and time.monotonic() - self._heard < 2.0:
                return
            raise KeyboardInterrupt
        self._stop_signal, self._heard = number, time.monotonic()
        if not self.components.ranks.is_first:
            return
        # Not by the console: the signal may have come in the middle of its printing.
        os.write(2, b"\nstopping after this rollout (once more to stop without saving) ...\n")

    @property
    def rounds(self) -> str:
        """What a round is called: a rollout, where each has one."""
        return "rollouts" if all(phase.name == "online" for phase in self.phases) else "rounds"

    def _save(self) -> None:
        """Everything, if the weights are finite."""
        with self.costs.timed(self.costs.checkpoint):
            self._write_checkpoint()
        self._saved_at, self._saved_clock = self.rounds_done, time.monotonic()

    def _write_checkpoint(self) -> None:
        components = self.components
        self.recorder.require_finite_weights()
        components.policy.step = components.updates
        policy = saved_state.policy_state(components)
        training = saved_state.training_state(components, self.state_dict())
        if components.ranks.is_first:
            components.checkpoints.save(components.updates, policy, training)

    def state_dict(self) -> dict[str, Any]:
        """The position of the loop, and the recorder's state; the keys are those of the first release."""
        owed = {"owes_evaluation": True} if self._owes_evaluation else {}
        return {"rollouts_done": self.rounds_done, "journal": self.recorder.state_dict()} | owed

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rounds_done = self._saved_at = state["rollouts_done"]
        self._owes_evaluation = state.get("owes_evaluation", False)
        self.recorder.load_state_dict(state["journal"])
        for mean in self.costs.rounds.values() if self.rounds_done else ():  # with all that came between the rounds
            mean.expected = self.recorder.wall_before / self.rounds_done

    def _summary(self, status: str) -> dict[str, Any]:
        components, recorder = self.components, self.recorder
        totals = {
            "rollouts": self.rounds_done, "updates": components.updates, "env_steps": components.env_steps,
            "transitions": int(components.learner.transitions), "wall_s": round(recorder.wall_seconds, 1),
        }  # fmt: skip
        return {
            "status": status, "last": recorder.last, "best": recorder.best, "best_metric": recorder.best_metric,
            "totals": totals, "notes": components.notes,
        }  # fmt: skip
