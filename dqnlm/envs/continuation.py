"""Text continuation: the agent reads a prompt from a text and continues it, one token per decision.

An episode is a random window of prompt_length + horizon reference tokens w_0 .. w_T, so that
T = prompt_length - 1 + horizon:

    time          0 ... P-2      P-1       P         ...   T-1        T          P = prompt_length
    observation   w_0 .. w_P-2   w_P-1     x_P       ...   x_T-1      x_T        x = chosen token (free) or w (teacher)
    step          no decision    judged    judged    ...   judged                the step at time t is judged by w_t+1

Steps inside the prompt are no decisions: flag 0, reward 0, and w_t+1 comes whatever was chosen. After the last decision
the episode terminates, or is truncated (`horizon_end`). A stop token terminates it early.

A sequence-level reward (`Reward.sequence_level`) is computed when an episode is over: the decisions are kept until then, and the
last step returns their rewards. Where episodes may end early (a stop token), this costs a device sync at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from dqnlm.envs.base import StepEnvironment, TeacherForced
from dqnlm.envs.continuation_checks import check_choice, check_numbers, check_tokens
from dqnlm.errors import UserError
from dqnlm.rewards.base import Episodes, Reward
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Bounds, Rows, TaskSpec, TimeStep


class Continuation(StepEnvironment, TeacherForced):
    """Continues windows of a text.

    Args:
        corpus_ids: 1-D, token ids of any integer dtype; moved to `device` as they are.
        reward: of the decisions.
        num_actions: A; every id of the corpus is below it.
        legal_mask_A: bool, which tokens may be chosen; None for all.
        eos_id: token that ends an episode when chosen; None for none.
        device: where everything lives.
        seed: of the generator that draws the windows.
        num_envs: E, episodes played at once.
        guesses_per_position: consecutive environments that read the same text, each choosing apart (teacher only).
        prompt_length: P, tokens read before the first decision.
        horizon: H, decisions in an episode.
        transition: what follows a decision: `free` the chosen token, `teacher` the reference token.
        horizon_end: after the last decision the episode terminates (value 0) or is truncated (its end has a value).
        stop_token: the character of `eos_id`, or None.
        allowed: the characters of `legal_mask_A`, or None.

    Raises:
        UserError: a number below 1, an unknown word, a stop token under `teacher` or not allowed, no token allowed,
            or a text shorter than one window.
    """

    task = "text"

    def __init__(
        self,
        corpus_ids: Tensor,
        reward: Reward,
        num_actions: int,
        legal_mask_A: Tensor | None,
        eos_id: int | None,
        device: torch.device | str,
        seed: int,
        *,
        num_envs: int,
        guesses_per_position: int,
        prompt_length: int,
        horizon: int,
        transition: Literal["free", "teacher"],
        horizon_end: Literal["terminate", "truncate"],
        stop_token: str | None,
        allowed: str | None,
    ) -> None:
        check_numbers(
            {
                "num_envs": num_envs, "guesses_per_position": guesses_per_position, "prompt_length": prompt_length,
                "horizon": horizon,
            },
            corpus_ids,
        )  # fmt: skip
        check_choice("transition", transition, ("free", "teacher"))
        check_choice("horizon_end", horizon_end, ("terminate", "truncate"))
        check_tokens(legal_mask_A, eos_id, transition, stop_token, allowed)
        if int(corpus_ids.max()) >= num_actions:
            raise ValueError(f"token {int(corpus_ids.max())} in the corpus, but only {num_actions} actions")
        self.device = torch.device(device)
        if num_envs % guesses_per_position:
            raise UserError(
                f"env.num_envs={num_envs} is no multiple of env.guesses_per_position={guesses_per_position}; set it to "
                f"{(num_envs // guesses_per_position + 1) * guesses_per_position}"
            )
        if guesses_per_position > 1 and transition != "teacher":
            raise UserError(
                f"env.guesses_per_position={guesses_per_position} needs env.transition=teacher: free environments "
                "differ after the first decision"
            )
        self.num_envs, self.horizon, self.guesses_per_position = num_envs, horizon, guesses_per_position
        self.prompt_length, self.first_decision = prompt_length, prompt_length - 1
        self.row_transitions = self.first_decision + horizon
        self.spec = TaskSpec(
            num_actions=num_actions, num_tokens=num_actions, row_transitions=self.row_transitions,
            episode_steps=self.row_transitions, first_decision=self.first_decision, stores_actions=transition != "free",
            eos_id=eos_id, guesses_per_position=guesses_per_position, teacher_forced=transition == "teacher",
            lockstep=eos_id is None, truncates=horizon_end == "truncate", deterministic=transition == "free",
        )  # fmt: skip
        self.reward, self.eos_id = reward, eos_id
        self._free = transition == "free"
        self._end_flag = TERMINATED if horizon_end == "terminate" else TRUNCATED
        self._corpus = corpus_ids.to(self.device)
        self._legal_mask_A = None if legal_mask_A is None else legal_mask_A.to(self.device)
        self._offset_S = torch.arange(self.row_transitions + 1, device=self.device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._window_ES = torch.zeros(num_envs, self.row_transitions + 1, dtype=torch.int64, device=self.device)
        self._time = 0  # in lockstep the host counts; else each copy has its own clock
        self._time_E = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._completion_EH = torch.zeros(num_envs, horizon, dtype=torch.int64, device=self.device)  # for a sequence-level reward

    def reset(self) -> Tensor:
        self._time = 0
        self._time_E = torch.zeros_like(self._time_E)
        return self._begin(None)

    def step(self, action_E: Tensor) -> TimeStep:
        return self._step_together(action_E) if self.spec.lockstep else self._step_apart(action_E)

    def _begin(self, mask_E: Tensor | None) -> Tensor:
        """Draws new windows where the mask holds (None: everywhere); returns their first tokens, observation_E."""
        starts = len(self._corpus) - self.row_transitions
        texts = self.num_envs // self.guesses_per_position
        start_E = torch.randint(starts, (texts,), generator=self._generator, device=self.device)
        start_E = start_E.repeat_interleave(self.guesses_per_position)
        window_ES = self._corpus[start_E[:, None] + self._offset_S].long()
        if mask_E is not None:
            window_ES = torch.where(mask_E[:, None], window_ES, self._window_ES)
        self._window_ES = window_ES
        self.reward.reset(window_ES[:, self.prompt_length :], mask_E)
        return window_ES[:, 0]

    def _step_together(self, action_E: Tensor) -> TimeStep:
        """A step of environments in lockstep: the host decides whether it is a decision."""
        decision = self._time >= self.first_decision
        self._time += 1
        last = self._time == self.row_transitions
        observation_E = action_E if decision and self._free else self._window_ES[:, self._time]
        reward_E = self.reward.step(action_E) if decision else self._full(0.0, torch.float32)
        sequence_reward_ET = None
        if self.reward.sequence_level and decision:
            self._remember(action_E, self._full(self._time - 1 - self.first_decision, torch.int64))
            sequence_reward_ET = self._judge_rows(self._completion_EH) if last else None
        flag_E = self._full(decision * DECISION | last * self._end_flag, torch.uint8)
        next_observation_E = observation_E
        if last:
            self._time = 0
            next_observation_E = self._begin(None)
        row_end_E = self._full(last, torch.bool)
        return TimeStep(observation_E, reward_E, flag_E, row_end_E, next_observation_E, row_end_E, sequence_reward_ET)

    def _step_apart(self, action_E: Tensor) -> TimeStep:
        """A step of environments at different times; windows are drawn for all at every step to avoid a host sync."""
        decision_E = self._time_E >= self.first_decision
        time_E = self._time_E + 1
        reference_E = self._window_ES.gather(1, time_E[:, None])[:, 0]
        observation_E = torch.where(decision_E, action_E, reference_E)  # a stop token needs `free`
        reward_E = self.reward.step(action_E, decision_E)
        stopped_E = decision_E & (action_E == self.eos_id)
        row_end_E = stopped_E | (time_E == self.row_transitions)
        end_E = torch.where(stopped_E, TERMINATED, self._end_flag)
        flag_E = (decision_E * DECISION + row_end_E * end_E).to(torch.uint8)
        sequence_reward_ET = None
        if self.reward.sequence_level:
            # Before the first decision place 0 is written, which that decision then writes itself.
            self._remember(action_E, (self._time_E - self.first_decision).clamp(min=0))
            sequence_reward_ET = self._judge_ended(row_end_E, time_E - self.first_decision)
        self._time_E = torch.where(row_end_E, 0, time_E)
        next_observation_E = torch.where(row_end_E, self._begin(row_end_E), observation_E)
        return TimeStep(observation_E, reward_E, flag_E, row_end_E, next_observation_E, row_end_E, sequence_reward_ET)

    def _remember(self, action_E: Tensor, place_E: Tensor) -> None:
        self._completion_EH = self._completion_EH.scatter(1, place_E[:, None], action_E[:, None])

    def _judge_ended(self, row_end_E: Tensor, length_E: Tensor) -> Tensor | None:
        """sequence_reward_ET of the rows that end now, with their numbers of decisions; one transfer to the host."""
        which_B = row_end_E.nonzero()[:, 0]
        if len(which_B) == 0:
            return None
        completion_BH, length_B = self._completion_EH[which_B], length_E[which_B]
        completion_BH = completion_BH.masked_fill(self._offset_S[: self.horizon] >= length_B[:, None], 0)
        sequence_reward_BT = self._judge_rows(completion_BH, self._window_ES[which_B], length_B)
        return torch.zeros(self.num_envs, self.row_transitions, device=self.device).index_copy(0, which_B, sequence_reward_BT)

    def _judge_rows(self, action_BH: Tensor, window_BS: Tensor | None = None, length_B: Tensor | None = None) -> Tensor:
        """The sequence-level reward of each transition, sequence_reward_BT; by default of whole rows of all environments."""
        window_BS = self._window_ES if window_BS is None else window_BS
        prompt_BP, reference_BH = window_BS[:, : self.prompt_length], window_BS[:, self.prompt_length :]
        prompt_length_B = torch.full_like(action_BH[:, 0], self.prompt_length)
        horizon_B = torch.full_like(prompt_length_B, self.horizon)
        length_B = horizon_B if length_B is None else length_B
        reward_BH = self.reward.judge(
            Episodes(prompt_BP, prompt_length_B, action_BH, length_B, reference_BH, horizon_B)
        )
        return torch.nn.functional.pad(reward_BH, (self.first_decision, 0))

    def _full(self, value: float, dtype: torch.dtype) -> Tensor:
        return torch.full((self.num_envs,), value, dtype=dtype, device=self.device)

    def skip_prompt(self) -> Tensor | None:
        if not self.spec.lockstep or self._time != 0 or self.prompt_length == 1:
            return None
        self._time = self.first_decision
        return self._window_ES[:, : self.prompt_length]

    def teacher_forced_observations(self) -> Tensor:
        self._check_whole_episodes("teacher_forced_observations")
        return self._window_ES

    def score_actions(self, action_ET: Tensor) -> Rows:
        self._check_whole_episodes("score_actions")
        first, E, T = self.first_decision, self.num_envs, self.row_transitions
        observation_ES = self._window_ES
        if self.reward.sequence_level:
            reward_ET = self._judge_rows(action_ET[:, first:])
        else:
            reward_EH = self.reward.row(action_ET[:, first:], observation_ES[:, self.prompt_length :])
            reward_ET = torch.nn.functional.pad(reward_EH, (first, 0))
        flag_ET = torch.zeros(E, T, dtype=torch.uint8, device=self.device)
        flag_ET[:, first:] = DECISION
        flag_ET[:, -1] = DECISION | self._end_flag
        self._begin(None)
        return Rows(observation_ES, action_ET, reward_ET, flag_ET, self._full(T, torch.int64))

    def _check_whole_episodes(self, method: str) -> None:
        if not self.spec.teacher_forced or self._time != 0:
            raise RuntimeError(f"{method} needs transition 'teacher' and time 0; this is time {self._time}")

    def demonstrate(self, count: int, generator: torch.Generator, with_rewards: bool) -> Rows:
        """Windows of the text; each token after the prompt is a decision, in both transition modes."""
        starts = len(self._corpus) - self.row_transitions
        start_B = torch.randint(starts, (count,), generator=generator, device=self.device)
        window_BS = self._corpus[start_B[:, None] + self._offset_S].long()
        completion_BH = window_BS[:, self.prompt_length :]
        reward_BT = torch.zeros(count, self.row_transitions, device=self.device)
        if with_rewards and self.reward.sequence_level:
            reward_BT = self._judge_rows(completion_BH, window_BS)
        elif with_rewards:
            reward_BT[:, self.first_decision :] = self.reward.row(completion_BH, completion_BH)
        flag_BT = torch.zeros(count, self.row_transitions, dtype=torch.uint8, device=self.device)
        flag_BT[:, self.first_decision :] = DECISION
        flag_BT[:, -1] |= self._end_flag
        length_B = torch.full((count,), self.row_transitions, device=self.device)
        return Rows(window_BS, window_BS[:, 1:], reward_BT, flag_BT, length_B)

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        return self._legal_mask_A

    def return_bounds(self, gamma: float) -> Bounds:
        return self.reward.return_bounds(gamma, self.horizon, endless=self._end_flag == TRUNCATED)

    @property
    def reward_bounds(self) -> Bounds:
        return self.reward.return_bounds(0.0, self.horizon)  # at gamma 0 a return is one reward

    def reward_parts(self) -> dict[str, Tensor]:
        return self.reward.parts()

    def state_dict(self) -> dict[str, Any]:
        return {
            "window_ES": self._window_ES,
            "time": self._time,
            "time_E": self._time_E,
            "generator": self._generator.get_state(),
            "reward": self.reward.state_dict(),
            **({"said_EH": self._completion_EH} if self.reward.sequence_level else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["window_ES"].shape != self._window_ES.shape:
            expected, found = tuple(self._window_ES.shape), tuple(state["window_ES"].shape)
            raise ValueError(f"saved windows of shape {found}; this environment has {expected}")
        self._window_ES = state["window_ES"].to(self.device)
        self._time, self._time_E = int(state["time"]), state["time_E"].to(self.device)
        self._generator.set_state(state["generator"].cpu())
        if self.reward.sequence_level:
            self._completion_EH = state["said_EH"].to(self.device)
        self.reward.load_state_dict(_to_device(state["reward"], self.device))


def _to_device(state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: _to_device(v, device) if isinstance(v, Mapping) else v.to(device) for k, v in state.items()}
