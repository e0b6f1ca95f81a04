"""The actor: plays the environments and stores finished rows in the buffer.

    completions      all completions of prompts are generated at once, each to its own end, and scored when all are finished
    teacher forcing  observations do not depend on actions: ONE forward gives Q(s_t, .) for all t, and every action of the
                     episode is chosen at once
    step by step     the network reads one observation at a time and carries its state (KV cache)

Weights change only between rollouts, so a carried state is never stale: a rollout that continues unfinished episodes
reads their observations again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from dqnlm.agent.exploration import Exploration
from dqnlm.agent.generation import answers
from dqnlm.agent.policy import Policy
from dqnlm.envs.base import CompletesPrompts, Environment, StepEnvironment, TeacherForced
from dqnlm.metrics import Accumulator
from dqnlm.networks.base import State
from dqnlm.networks.noisy import has_noise, resample_noise, set_noise
from dqnlm.ops.masking import rows_where
from dqnlm.types import DECISION, Rows, TimeStep

_ASK_EVERY = 16  # steps between two looks at whether an evaluation has all its episodes


class RowSink(Protocol):
    """Receiver of finished rows."""

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None: ...

    def finished(self, return_E: Tensor, episode_end_E: Tensor) -> None:
        """Called when rows may have ended, with the returns of the episodes that are over (bool)."""


class Actor:
    """Acts in `env` with `network` and `exploration`, vectorised.
"""

    def __init__(
        self,
        env: Environment,
        policy: Policy,
        exploration: Exploration,
        buffer: RowSink,
        accumulator: Accumulator,
    ) -> None:
        self.env, self.spec, self.policy, self.network, self.exploration = env, env.spec, policy, policy.network, exploration
        self.buffer, self.accumulator = buffer, accumulator
        self.env_steps = 0  # steps of all environments together; prompts that are played step by step count too
        self.episodes = torch.zeros((), dtype=torch.int64, device=env.device)  # that have ended
        self.noisy = has_noise(policy.network)
        rows, device, longest = env.num_envs, env.device, env.spec.row_transitions
        size = env.spec.observation_size
        shape, dtype = ((size,), torch.float32) if size else ((), torch.int64)
        self.return_E = torch.zeros(rows, device=device)  # of the episode so far, undiscounted
        self.steps_E = torch.zeros(rows, dtype=torch.int64, device=device)
        self.open = Rows(  # the rows being written, one an environment
            torch.zeros(rows, longest + 1, *shape, dtype=dtype, device=device),
            torch.zeros(rows, longest, dtype=torch.int64, device=device),
            torch.zeros(rows, longest, device=device),
            torch.zeros(rows, longest, dtype=torch.uint8, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
        )
        self._every_E = torch.arange(rows, device=device)
        self.time = 0  # transitions in the open rows; counted on the host only in lockstep
        self._play = self._choose_way_of_playing(env)

    def _choose_way_of_playing(self, env: Environment) -> Callable[[int | None, Callable[[], bool] | None], None]:
        """Chooses the way of playing that the environment's spec requires, and starts its episodes."""
        if isinstance(env, CompletesPrompts):
            return lambda steps, until: self._play_completions(env)
        if isinstance(env, TeacherForced) and env.spec.teacher_forced:
            env.reset()
            return lambda steps, until: self._play_teacher_forced(env)
        assert isinstance(env, StepEnvironment), f"{type(env).__name__} can be played in no way"
        self.open.observation_BS[:, 0] = env.reset()
        self._stepped = env
        return self._play_step_by_step

    @torch.no_grad()
    def rollout(
        self, steps: int | None = None, noise: bool = True, until: Callable[[], bool] | None = None
    ) -> None:
        """Plays one rollout; `exploration` must have been advanced.

        Args:
            steps: of each environment, where it is played step by step; None for whole episodes.
            noise: a noisy network acts with new noise (which is its exploration), else with its mean weights.
            until: called periodically; True ends the rollout (evaluation; step by step only).
        """
        self.network.eval()
        if self.noisy:
            set_noise(self.network, noise)
            if noise:
                resample_noise(self.network)
        self._play(steps, until)

    def _play_teacher_forced(self, env: TeacherForced) -> None:
        observation_ES, first, group = env.teacher_forced_observations(), self.spec.first_decision, self.spec.guesses_per_position
        if self.exploration.needs_q:
            output = self.network(observation_ES[::group, :-1], first)
            output = {name: raw.repeat_interleave(group, 0) for name, raw in output.items()}
            legal = env.legal(observation_ES[:, first:-1])
            chosen = self.exploration(self.policy.preference(output), legal, self.policy.log_probability(output))
            action_ET = torch.cat([observation_ES[:, 1 : first + 1], chosen], 1)
        else:
            action_ET = observation_ES[:, 1:]
        rows = env.score_actions(action_ET)
        self.buffer.add(rows)
        self.buffer.finished(rows.reward_BT.sum(1), torch.ones_like(rows.length_B, dtype=torch.bool))
        self.episodes += len(rows.length_B)
        self.env_steps += action_ET.shape[0] * (action_ET.shape[1] - first)
        self.accumulator.add("rollout/return", rows.reward_BT.sum(), rows.reward_BT.shape[0])
        self._log_parts(rows.flag_BT[:, first:])

    def _play_completions(self, env: CompletesPrompts) -> None:
        prompt_EP, length_E = env.prompts()
        legal = env.legal(prompt_EP[:, :1])

        def choose(output: dict[str, Tensor]) -> Tensor:
            return self.exploration(self.policy.preference(output), legal, self.policy.log_probability(output))

        most = self.spec.row_transitions - prompt_EP.shape[1] + 1
        action_EH, completion_length_E = answers(self.network, prompt_EP, length_E, choose, self.spec.eos_id, most)
        rows = env.score_completions(action_EH, completion_length_E)
        return_E, every_E = rows.reward_BT.sum(1), torch.ones_like(completion_length_E, dtype=torch.bool)
        self.buffer.add(rows)
        self.buffer.finished(return_E, every_E)
        self.episodes += len(completion_length_E)
        self.env_steps += int(completion_length_E.sum())
        self.accumulator.add("rollout/return", return_E.sum(), len(completion_length_E))
        self.accumulator.add("rollout/length", completion_length_E.sum(), len(completion_length_E))
        self._log_parts(torch.where(every_E[:, None], rows.flag_BT, 0))

    def _play_step_by_step(self, steps: int | None, until: Callable[[], bool] | None) -> None:
        # In lockstep the prompt is read at once; else it is played, so that a whole episode takes all of a row's steps.
        whole = self.spec.row_transitions - (self.spec.first_decision if self.spec.lockstep else 0)
        steps = steps or whole
        output, state = self._read_open_rows()
        for played in range(1, steps + 1):
            action_E = self._choose(output)
            output, state = self._advance(action_E, state)
            self.env_steps += self.env.num_envs
            if until is not None and played % _ASK_EVERY == 0 and until():
                break

    def _choose(self, output: dict[str, Tensor]) -> Tensor:
        observation_E = self.open.observation_BS[self._every_E, self.open.length_B]
        legal = self._stepped.legal_next(observation_E)
        return self.exploration(self.policy.preference(output), legal, self.policy.log_probability(output))

    def _advance(self, action_E: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """One step of all environments: stores it in the open rows, closes finished ones, reads the next observation."""
        step, rows = self._stepped.step(action_E), self.open
        at_E1 = rows.length_B[:, None]
        rows.action_BT.scatter_(1, at_E1, action_E[:, None])
        rows.reward_BT.scatter_(1, at_E1, step.reward_E[:, None])
        rows.flag_BT.scatter_(1, at_E1, step.flag_E[:, None])
        rows.observation_BS[self._every_E, rows.length_B + 1] = step.observation_E
        rows.length_B += 1
        self.return_E += step.reward_E
        self.steps_E += 1
        self.time += 1
        if step.sequence_reward_ET is not None:
            self._replace_rewards(step.sequence_reward_ET, step.row_end_E)
        self._log_parts(step.flag_E if step.sequence_reward_ET is None else rows.flag_BT * step.row_end_E[:, None])
        if not self.spec.lockstep or self.time == self.spec.row_transitions:
            self._close(step)
            state = self.network.reset(state, step.row_end_E)
        return self._read_next(step.next_observation_E, state)

    def _replace_rewards(self, sequence_reward_ET: Tensor, row_end_E: Tensor) -> None:
        """Replaces the step rewards of whole rows by sequence-level rewards, also in the return so far."""
        reward_BT = torch.where(row_end_E[:, None], sequence_reward_ET, self.open.reward_BT)
        self.return_E += (reward_BT - self.open.reward_BT).sum(1)
        self.open.reward_BT.copy_(reward_BT)

    def _close(self, step: TimeStep) -> None:
        """Passes finished rows on and starts new ones; counts finished episodes."""
        rows, row_end_E, episode_end_E = self.open, step.row_end_E, step.episode_end_E
        self.buffer.add(rows, row_end_E)
        self.buffer.finished(self.return_E, episode_end_E)
        self.episodes += episode_end_E.sum()
        self.accumulator.add("rollout/return", (self.return_E * episode_end_E).sum(), episode_end_E.sum())
        self.accumulator.add("rollout/length", (self.steps_E * episode_end_E).sum(), episode_end_E.sum())
        for total_E in (self.return_E, self.steps_E):
            total_E.masked_fill_(episode_end_E, 0)
        for field in (rows.action_BT, rows.reward_BT, rows.flag_BT):
            field.masked_fill_(row_end_E[:, None], 0)
        wide = row_end_E.view(-1, *[1] * (rows.observation_BS.dim() - 1))
        rows.observation_BS.masked_fill_(wide, 0)
        rows.length_B.masked_fill_(row_end_E, 0)
        rows.observation_BS[:, 0] = torch.where(wide[:, 0], step.next_observation_E, rows.observation_BS[:, 0])
        self.time = 0 if self.spec.lockstep else self.time

    def _read_next(self, observation_E: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Feeds the next observation; at the start of a lockstep episode the whole prompt at once."""
        prompt_EP = self._stepped.skip_prompt() if self.spec.lockstep and self.time == 0 else None
        if prompt_EP is None:
            return self.network.step(observation_E, state)
        return self._read_prompt(prompt_EP, state)

    def _read_prompt(self, prompt_EP: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        given = prompt_EP.shape[1] - 1
        self.open.observation_BS[:, : given + 1] = prompt_EP
        self.open.action_BT[:, :given] = prompt_EP[:, 1:]
        self.open.length_B += given
        self.time = given
        output, state = self.network.prefill(prompt_EP, state)
        return {name: raw[:, -1] for name, raw in output.items()}, state

    def _read_open_rows(self) -> tuple[dict[str, Tensor], State]:
        """The network's state after all observations of the open rows, under the current weights."""
        rows = self.open
        state = self.network.initial_state(self.env.num_envs, self.env.device)
        if self.spec.lockstep:
            if self.time == 0:
                return self._read_next(rows.observation_BS[:, 0], state)
            output, state = self.network.prefill(rows.observation_BS[:, : self.time + 1], state)
            return {name: raw[:, -1] for name, raw in output.items()}, state
        return self._reread_apart(state)

    def _reread_apart(self, state: State) -> tuple[dict[str, Tensor], State]:
        """The same for environments at different times: later starts keep their initial state until then.

        Tensors that a body updates in place (a KV cache) are the same object before and after; their entries beyond a
        row's own position are never read, and are overwritten later.
        """
        rows, kept = self.open, None
        longest = self.spec.row_transitions
        reach = longest if self.network.receptive_field is None else self.network.receptive_field
        for back in reversed(range(min(reach, longest))):
            before = dict(state)
            at_E = rows.length_B - back
            now_E = at_E >= 0
            positions = {k: v.clone() for k, v in before.items() if v.dim() == 1}
            output, after = self.network.step(rows.observation_BS[self._every_E, at_E.clamp(min=0)], state)
            state = {k: _kept_rows(now_E, v, before[k], positions.get(k)) for k, v in after.items()}
            kept = output if kept is None else {k: rows_where(now_E, v, kept[k]) for k, v in output.items()}
        assert kept is not None
        return kept, state

    def _log_parts(self, flag: Tensor) -> None:
        """Logs the mean of each reward component over the scored decisions, which `flag` marks."""
        for name, part in self.env.reward_parts().items():
            self.accumulator.add(f"reward/{name}", part.sum(), ((flag & DECISION) != 0).sum())

    def state_dict(self) -> dict[str, Any]:
        fields = {k: v.clone() for k, v in vars(self.open).items()}
        running = {"return_E": self.return_E.clone(), "steps_E": self.steps_E.clone()}
        counts = {"env_steps": self.env_steps, "episodes": self.episodes.clone()}
        return {"open": fields, "time": self.time, "running": running} | counts

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env_steps = state["env_steps"]
        self.episodes.copy_(state["episodes"])
        if not self.spec.exact_resume:  # the environment's episodes start anew, so the open rows do too
            self.open.observation_BS[:, 0] = self._stepped.reset()
            return
        for name, value in state["open"].items():
            getattr(self.open, name).copy_(value)
        self.time = state["time"]
        self.return_E.copy_(state["running"]["return_E"])
        self.steps_E.copy_(state["running"]["steps_E"])


def _kept_rows(now_E: Tensor, after: Tensor, before: Tensor, position_E: Tensor | None) -> Tensor:
    """A tensor of the state after a step that only the rows `now_E` took; `position_E`: a copy from before it, if any.

    What the step updated in place stays the same tensor, so that a state that is recorded on its device is still known.
    """
    kept = rows_where(now_E, after, before if position_E is None else position_E)
    return after.copy_(kept) if after is before and kept is not after else kept
