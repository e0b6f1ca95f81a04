"""Plays the environments and puts finished rows into the buffer.

    parallel (teacher)   observations do not depend on actions: ONE forward gives Q(s_t, .) for all t, and every action
                         of the episode is chosen at once
    step by step (free)  the network reads one observation at a time and carries its state (KV cache)

Weights change only between rollouts, so a carried state is never stale: a rollout that goes on with unfinished episodes
reads their observations anew.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from dqnlm.envs.base import Environment
from dqnlm.exploration import Exploration
from dqnlm.heads.base import Head
from dqnlm.metrics import Accumulator
from dqnlm.networks.base import QNetwork, State
from dqnlm.types import DECISION, Rows


class RowSink(Protocol):
    """Where finished rows go."""

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None: ...


class Actor:
    """Acts in `env` with `network` and `exploration`, vectorised.

    Args:
        rollout_steps: decisions of each environment in a rollout; None for whole episodes.
    """

    def __init__(
        self,
        env: Environment,
        network: QNetwork,
        head: Head,
        exploration: Exploration,
        buffer: RowSink,
        accumulator: Accumulator,
        rollout_steps: int | None,
    ) -> None:
        self.env, self.network, self.head, self.exploration = env, network, head, exploration
        self.buffer, self.accumulator, self.rollout_steps = buffer, accumulator, rollout_steps
        self.env_steps = 0  # steps of all environments together; prompts that are played step by step count too
        rows, device = env.num_envs, env.device
        self.open = Rows(  # the rows being written, one an environment
            torch.zeros(rows, env.row_transitions + 1, dtype=torch.int64, device=device),
            torch.zeros(rows, env.row_transitions, dtype=torch.int64, device=device),
            torch.zeros(rows, env.row_transitions, device=device),
            torch.zeros(rows, env.row_transitions, dtype=torch.uint8, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
        )
        self.time = 0  # transitions in the open rows; counted on the host only in lockstep
        if not env.parallel:
            self.open.observation_BS[:, 0] = env.reset()
        else:
            env.reset()

    @torch.no_grad()
    def rollout(self) -> None:
        """Plays one rollout; `exploration` must have been advanced."""
        self.network.eval()
        if self.env.parallel:
            self._play_parallel()
        else:
            self._play_step_by_step()

    def _play_parallel(self) -> None:
        observation_ES = self.env.reveal()
        if self.exploration.needs_q:
            raw = self.network(observation_ES[:: self.env.copies, :-1], self.env.first_decision)["q"]
            raw = raw.repeat_interleave(self.env.copies, 0)
            legal = self.env.legal(observation_ES[:, self.env.first_decision : -1])
            chosen = self.exploration(self.head.value(raw), legal, self.head.log_probability(raw))
            action_ET = torch.cat([observation_ES[:, 1 : self.env.first_decision + 1], chosen], 1)
        else:
            action_ET = observation_ES[:, 1:]
        rows = self.env.score(action_ET)
        self.buffer.add(rows)
        self.env_steps += action_ET.shape[0] * (action_ET.shape[1] - self.env.first_decision)
        self.accumulator.add("rollout/return", rows.reward_BT.sum(), rows.reward_BT.shape[0])
        self._log_parts(rows.flag_BT[:, self.env.first_decision :])

    def _play_step_by_step(self) -> None:
        # In lockstep the prompt is read at once; else it is played, so that a whole episode takes all of a row's steps.
        whole = self.env.row_transitions - (self.env.first_decision if self.env.lockstep else 0)
        steps = self.rollout_steps or whole
        output, state = self._read_open_rows()
        for _ in range(steps):
            action_E = self._choose(output)
            output, state = self._advance(action_E, state)
            self.env_steps += self.env.num_envs

    def _choose(self, output: dict[str, Tensor]) -> Tensor:
        raw_EAN = output["q"]
        at_E = self.open.length_B
        observation_E1 = self.open.observation_BS.gather(1, at_E[:, None])
        legal = self.env.legal(observation_E1)
        legal = legal if legal is None or legal.dim() < 3 else legal[:, 0]
        return self.exploration(self.head.value(raw_EAN), legal, self.head.log_probability(raw_EAN))

    def _advance(self, action_E: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """One step of all environments: writes it into the open rows, closes those that ended, reads what is next."""
        step, rows = self.env.step(action_E), self.open
        at_E1 = rows.length_B[:, None]
        rows.action_BT.scatter_(1, at_E1, action_E[:, None])
        rows.reward_BT.scatter_(1, at_E1, step.reward_E[:, None])
        rows.flag_BT.scatter_(1, at_E1, step.flag_E[:, None])
        rows.observation_BS.scatter_(1, at_E1 + 1, step.observation_E[:, None])
        rows.length_B += 1
        self.time += 1
        self._log_parts(step.flag_E)
        if not self.env.lockstep or self.time == self.env.row_transitions:
            self._close(step.last_E, step.next_observation_E)
            state = self.network.reset(state, step.last_E)
        return self._read_next(step.next_observation_E, state)

    def _close(self, last_E: Tensor, next_observation_E: Tensor) -> None:
        rows = self.open
        self.buffer.add(rows, last_E)
        self.accumulator.add("rollout/return", (rows.reward_BT.sum(1) * last_E).sum(), last_E.sum())
        self.accumulator.add("rollout/length", (rows.length_B * last_E).sum(), last_E.sum())
        for field in (rows.observation_BS, rows.action_BT, rows.reward_BT, rows.flag_BT):
            field.masked_fill_(last_E[:, None], 0)
        rows.length_B.masked_fill_(last_E, 0)
        rows.observation_BS[:, 0] = torch.where(last_E, next_observation_E, rows.observation_BS[:, 0])
        self.time = 0 if self.env.lockstep else self.time

    def _read_next(self, observation_E: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Feeds the next observation; at the start of a lockstep episode the whole prompt at once."""
        prompt_EP = self.env.skip_prompt() if self.env.lockstep and self.time == 0 else None
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
        """The network's state after all observations of the open rows, under the weights of now."""
        rows = self.open
        state = self.network.initial_state(self.env.num_envs, self.env.device)
        if self.env.lockstep:
            if self.time == 0:
                return self._read_next(rows.observation_BS[:, 0], state)
            output, state = self.network.prefill(rows.observation_BS[:, : self.time + 1], state)
            return {name: raw[:, -1] for name, raw in output.items()}, state
        return self._reread_apart(state)

    def _reread_apart(self, state: State) -> tuple[dict[str, Tensor], State]:
        """As above where each environment stands at its own time: those that are done keep what they had.

        Tensors that a body updates in place (a KV cache) are the same object before and after; their entries beyond a
        row's own position are never read, and are overwritten later.
        """
        rows, kept = self.open, None
        for t in range(self.env.row_transitions):
            before = dict(state)
            now_E = rows.length_B >= t
            positions = {k: v.clone() for k, v in before.items() if v.dim() == 1}
            output, after = self.network.step(rows.observation_BS[:, t], state)
            state = {k: _choose_rows(now_E, v, positions.get(k, before[k])) for k, v in after.items()}
            kept = output if kept is None else {k: _choose_rows(now_E, v, kept[k]) for k, v in output.items()}
        assert kept is not None
        return kept, state

    def _log_parts(self, flag: Tensor) -> None:
        """Mean of each part over the decisions just judged; `flag` has the parts' shape (a part is 0 at other steps)."""
        for name, part in self.env.reward_parts().items():
            self.accumulator.add(f"reward/{name}", part.sum(), ((flag & DECISION) != 0).sum())

    def state_dict(self) -> dict[str, Any]:
        fields = {k: v.clone() for k, v in vars(self.open).items()}
        return {"open": fields, "time": self.time, "env_steps": self.env_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state["open"].items():
            getattr(self.open, name).copy_(value)
        self.time, self.env_steps = state["time"], state["env_steps"]


def _choose_rows(mask_E: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` where the mask is True; the same object is given back as it is."""
    if new is old:
        return new
    return torch.where(mask_E.view(-1, *[1] * (new.dim() - 1)), new, old)
