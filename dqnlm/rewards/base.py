"""The reward interface: a reward scores each chosen token against a reference of H tokens, for E environments.

token-level      computed at each step: tensor code without host synchronisation, with a state. The state is never changed
                 in place, so an old state stays valid after a step: that makes `row` and `state_dict` safe at any moment.
sequence-level   0 before an episode is over; then `judge` gives the reward of each decision, for a whole batch of finished
                 episodes at once. It has no state, and may work on the host (one transfer a call).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.ops.masking import rows_where
from dqnlm.types import Bounds
from dqnlm.utils.context import RunContext
from dqnlm.utils.declared import require_method
from dqnlm.utils.shapes import full_name, require_shape

State = dict[str, Tensor]  # every tensor's first axis is E


class Episodes(NamedTuple):
    """Whole finished episodes, the input of a sequence-level reward; all right-padded with 0.

    Attributes:
        prompt_BP: int64, token ids read before the first decision.
        prompt_length_B: int64.
        action_BH: int64, token ids chosen, with the stop token where one was chosen.
        length_B: int64, decisions that count, at least 1.
        reference_BR: int64, token ids of the reference text, without a stop token; R may be 0.
        reference_length_B: int64, 0 where there is no reference.
        prompt_index_B: int64, which prompt of the data each has; None where prompts are not numbered.
    """

    prompt_BP: Tensor
    prompt_length_B: Tensor
    action_BH: Tensor
    length_B: Tensor
    reference_BR: Tensor
    reference_length_B: Tensor
    prompt_index_B: Tensor | None = None


def without_prompt(action_BH: Tensor, reference_BH: Tensor) -> Episodes:
    """Episodes of full length without a prompt."""
    zero_B = torch.zeros_like(action_BH[:, 0], dtype=torch.int64)
    full_B, reference_B = zero_B + action_BH.shape[1], zero_B + reference_BH.shape[1]
    return Episodes(action_BH[:, :0].long(), zero_B, action_BH.long(), full_B, reference_BH.long(), reference_B)


def discounted_length(gamma: float, steps: float) -> float:
    """Sum of gamma^i for i < steps; `steps` may be infinite (the sum is then infinite at gamma 1)."""
    return steps if gamma == 1.0 else (1.0 - gamma**steps) / (1.0 - gamma)


class Reward(ABC):
    """Base class of rewards: scores chosen tokens against references.

    Args:
        num_actions: A, the size of the vocabulary.

    Attributes:
        knows_all_actions: whether `all_actions` gives the reward of every action, also of those not taken.
        is_match_indicator: 1 for the reference's own token and 0 for any other, so that its mean is a probability.
        is_none: there is no reward; answers are not scored.
        sequence_level: 0 before an episode is over; then `judge` gives that of each decision.
    """

    knows_all_actions: bool = False
    is_match_indicator: bool = False
    is_none: bool = False
    sequence_level: bool = False

    def __init_subclass__(cls) -> None:
        require_method(cls, Reward, "knows_all_actions", "all_actions")
        require_method(cls, Reward, "sequence_level", "judge")

    def __init__(self, num_actions: int) -> None:
        self.num_actions = num_actions

    def use_columns(self, columns: dict[str, list[Any]]) -> None:  # noqa: B027
        """Receives the further columns of the prompts, a value a prompt each, before anything is judged."""

    def only_scores(self) -> None:  # noqa: B027
        """Called where nothing is learned from it, so that no bound of its scores has a meaning."""

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @property
    @abstractmethod
    def bounds(self) -> Bounds:
        """Bounds of the reward of one decision, whatever the length of the reference."""

    def return_bounds(self, gamma: float, horizon: int, endless: bool = False) -> Bounds:
        """Bounds of sum_{i<k} gamma^i r_{t+i} from any decision t, where any k >= 1 decisions may be left.

        Args:
            gamma: discount of one decision, in [0, 1].
            horizon: H, decisions in an episode and tokens in a reference.
            endless: the episode is cut at the horizon but valued as if it went on (truncation): k has no limit.

        Returns:
            Bounds in return units, infinite where there are none.
        """
        length = discounted_length(gamma, math.inf if endless else horizon)
        low, high = self.bounds
        return Bounds(low * length if low < 0 else low, high * length if high > 0 else high)

    @abstractmethod
    def reset(self, reference_EH: Tensor, mask_E: Tensor | None = None) -> None:
        """Starts new episodes.

        Args:
            reference_EH: token ids of the reference; rows outside the mask are ignored.
            mask_E: bool, which environments start anew; None for all. The first call starts all of them.
        """

    @abstractmethod
    def step(self, action_E: Tensor, active_E: Tensor | None = None) -> Tensor:
        """Scores the next decision of each environment.

        Args:
            action_E: token ids, int64.
            active_E: bool, environments at a decision; the others keep their state and get 0. None for all.

        Returns:
            reward_E, float32.
        """

    @abstractmethod
    def row(self, action_BH: Tensor, reference_BH: Tensor) -> Tensor:
        """Scores whole episodes at once, equal to `reset` and H times `step`; the running state does not change.

        Returns:
            reward_BH, float32.
        """

    def all_actions(self, reference_BH: Tensor) -> Tensor:
        """The reward of each action at each position; only where `knows_all_actions`.

        A place's rewards must follow from the reference's token there alone: the argument may be any part of a
        reference, so its first place need not be that of the first decision.

        Returns:
            reward_BHA, float32.

        Raises:
            NotImplementedError: the reward of an action depends on the actions before it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reward for actions that were not taken")

    def judge(self, episodes: Episodes) -> Tensor:
        """The reward of each decision of finished episodes; only where `sequence_level`. Changes no state.

        Returns:
            reward_BH, float32, on the device of `action_BH`; 0 behind `length_B`.

        Raises:
            NotImplementedError: the reward is token-level.
        """
        raise NotImplementedError(f"{type(self).__name__} is a token-level reward: use reset and step, or row")

    def parts(self) -> dict[str, Tensor]:
        """The unweighted components of the latest `step` (E), `row` or `judge` (BH) reward, by name.

        {} if of one piece, and after a `step` of a sequence-level reward.
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The complete state: tensors in (nested) dicts."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`; tensors are used as they are, on their device."""


class StatefulReward(Reward):
    """A token-level reward written as two pure functions on a dict of tensors: `_start` and `_advance`."""

    def __init__(self, num_actions: int) -> None:
        super().__init__(num_actions)
        self._state: State = {}

    @abstractmethod
    def _start(self, reference_EH: Tensor) -> State:
        """The state before the first decision."""

    @abstractmethod
    def _advance(self, state: State, action_E: Tensor) -> tuple[State, Tensor]:
        """The state after one decision of every environment, and reward_E; must change no tensor of `state`."""

    def reset(self, reference_EH: Tensor, mask_E: Tensor | None = None) -> None:
        started = self._start(reference_EH)
        if mask_E is not None and self._state:
            started = {name: rows_where(mask_E, new, self._state[name]) for name, new in started.items()}
        self._state = started

    def step(self, action_E: Tensor, active_E: Tensor | None = None) -> Tensor:
        state, reward_E = self._checked_advance(self._state, action_E)
        if active_E is not None:
            state = {name: rows_where(active_E, new, self._state[name]) for name, new in state.items()}
            reward_E = torch.where(active_E, reward_E, 0.0)
        self._state = state
        return reward_E

    def row(self, action_BH: Tensor, reference_BH: Tensor) -> Tensor:
        state, rewards = self._start(reference_BH), []
        for action_B in action_BH.unbind(1):
            state, reward_B = self._checked_advance(state, action_B)
            rewards.append(reward_B)
        return torch.stack(rewards, 1)

    def _checked_advance(self, state: State, action_E: Tensor) -> tuple[State, Tensor]:
        answer = self._advance(state, action_E)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise UserError(f"{full_name(self)}: _advance returned {answer!r:.60}, where (state, reward_E) is meant")
        require_shape(answer[1], action_E.shape, f"{full_name(self)}: reward_E of _advance")
        return answer

    def state_dict(self) -> dict[str, Any]:
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = dict(state)


class SequenceReward(Reward):
    """A sequence-level reward; subclasses implement `judge` and the bounds."""

    sequence_level = True

    @abstractmethod
    def judge(self, episodes: Episodes) -> Tensor: ...

    def reset(self, reference_EH: Tensor, mask_E: Tensor | None = None) -> None:
        pass

    def step(self, action_E: Tensor, active_E: Tensor | None = None) -> Tensor:
        return torch.zeros(action_E.shape, dtype=torch.float32, device=action_E.device)

    def row(self, action_BH: Tensor, reference_BH: Tensor) -> Tensor:
        """As `judge`, for episodes of full length without a prompt."""
        return self.judge(without_prompt(action_BH, reference_BH))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
