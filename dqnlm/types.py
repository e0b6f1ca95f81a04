"""The data types shared by all packages, and the legend of tensor names.

Axes: `B` rows in a batch, `E` parallel environments, `S = T + 1` observations, `T` transitions, `A` actions (the
vocabulary), `N` atoms or quantiles, `D` features, `C` rows of capacity. Names end in their axes: `q_BSA`, `reward_BT`.

    time          0     1     2          T-1    T
    observation   o_0   o_1   o_2  ...   o_T-1  o_T        S = T + 1 of them
    action        a_0   a_1   a_2  ...   a_T-1             a_t is chosen after reading o_0 .. o_t
    reward        r_0   r_1   r_2  ...   r_T-1             r_t, flag_t, discount_t, mask_t belong to s_t -> s_{t+1}

`q_BSA[b, t]` is Q(s_t, .). A row is part of ONE episode, right-padded, with its length in transitions. Observations are
token ids, `observation_BS`, or vectors of F numbers, `observation_BSF` (the same fields hold them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Bits of `flag`, one byte a transition. Padding is 0 everywhere.
DECISION = 1  # the agent chose this step's action (prompt tokens and a partner's tokens are not decisions)
TERMINATED = 2  # the episode ended here: nothing follows, discount 0
TRUNCATED = 4  # the row was cut here: its last observation still has a value, discount gamma

# observation_BS -> bool mask of legal actions, broadcastable to BSA, or None where all actions are legal everywhere.
LegalActions = Callable[[Tensor], Tensor | None]


class Bounds(NamedTuple):
    """The least and the greatest value a reward or a return can take; infinite where unknown."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """The static facts of a task, carried by its environment, the buffer, the network and the policy.

    Attributes:
        num_actions: A.
        num_tokens: token ids that can be observed; 0 where observations are vectors.
        observation_size: F of vector observations, float32; 0 where observations are tokens.
        alphabet: the character of each token id, where the environment brings its own; None where a text gives them.
        row_transitions: T, the longest row; 0 where unknown (the policy of a run that was saved before this was recorded).
        episode_steps: most environment steps in one episode.
        first_decision: no row has a decision before this time.
        stores_actions: False where the action always is the token observed next, so that it need not be stored.
        eos_id: token that ends an episode when chosen; None for none.
        guesses_per_position: size of groups of consecutive environments that observe the same text and act independently.
        teacher_forced: observations do not depend on actions, so that whole episodes are played in one forward pass.
        lockstep: all episodes start and end at the same time, known on the host.
        multi_turn: steps without a decision may follow a decision in the same row.
        variable_length: trim each batch to its longest row (costs one device sync).
        truncates: a row may end without termination of its episode, so that its last observation has a value.
        context_carry: where an episode goes on in a new row, that row begins with so many last observations of the old one
            and nothing before them, so their value is to be read without it; 0 where this makes no difference.
        exact_resume: a saved state restores the very episodes; else new ones are started.
        deterministic: the next observation follows from the row so far and the action; False also where that is not known.
        reward_names: of several rewards, each learned by a Q of its own; empty: there is one.
    """

    num_actions: int
    num_tokens: int
    observation_size: int = 0
    alphabet: str | None = None
    row_transitions: int
    episode_steps: int
    first_decision: int = 0
    stores_actions: bool = True
    eos_id: int | None = None
    guesses_per_position: int = 1
    teacher_forced: bool = False
    lockstep: bool = False
    multi_turn: bool = False
    variable_length: bool = False
    truncates: bool = False
    context_carry: int = 0
    exact_resume: bool = True
    deterministic: bool = False
    reward_names: tuple[str, ...] = ()


class TimeStep(NamedTuple):
    """The result of one action in each of the E environments.

    Attributes:
        observation_E: the next observation of the same episode, also when that episode ends with it.
        reward_E: float32, in the reward's units; 0 where the step was no decision.
        flag_E: uint8, bits DECISION, TERMINATED, TRUNCATED.
        row_end_E: bool, the row ends with this step: the episode ended, or a long one is cut into rows here.
        next_observation_E: the observation to act on next: the first observation of a new row where `row_end_E`, else
            `observation_E`. It never enters a row as the successor of this action.
        episode_end_E: bool, the episode ended with this step (then `row_end_E` holds too).
        sequence_reward_ET: float32, T = row_transitions: rewards of the whole row that ends with this step, in the rows
            where `row_end_E` holds (0 behind their length; other rows are not read). They replace those given step by step. None:
            those stand.
    """

    observation_E: Tensor
    reward_E: Tensor
    flag_E: Tensor
    row_end_E: Tensor
    next_observation_E: Tensor
    episode_end_E: Tensor
    sequence_reward_ET: Tensor | None = None


@dataclass
class Rows:
    """A block of rows as stored: compact token types, flags not yet converted to discounts.

    Attributes:
        observation_BS: token ids (any integer dtype) or float32 vectors, right-padded with 0.
        action_BT: token ids.
        reward_BT: float32.
        flag_BT: uint8; 0 on padding.
        length_B: int64, transitions that count.
    """

    observation_BS: Tensor
    action_BT: Tensor
    reward_BT: Tensor
    flag_BT: Tensor
    length_B: Tensor


@dataclass
class Batch:
    """A batch of rows for the objectives.

    Attributes:
        observation_BS: int64 token ids, or float32 vectors.
        action_BT: int64.
        reward_BT: float32; with several rewards (`TaskSpec.reward_names`) one more axis, their number.
        discount_BT: float32: gamma for an ordinary decision, gamma at a truncation, 0 at a termination, 1 on a step
            that is not the agent's, 0 on padding.
        mask_BT: float32: 1 where the step was the agent's decision.
        length_B: int64, transitions that count in each row; what lies behind is padding.
        weight_B: float32 importance weights of the sampler, 1 for uniform sampling.
        index_B: int64, position of each row in the buffer.
        copies: consecutive rows come in groups of so many with the same observations (environments that read the same
            text): one forward serves them all.
        first: no row has a decision before this time, so outputs before it need not be computed.
        learn_BT: float32: 1 at the decisions that the loss reads, where those are not all of `mask_BT` (a drawn decision,
            with later ones for its return alone); None: all of them.
        own_B: bool: rows that the agent played itself, whose actions are not to be cloned; None: no row is.
        cut_B: bool: the last observation is that of a row that was cut, with which the next row begins (windows may end
            before it); None: every row reaches its end.
    """

    observation_BS: Tensor
    action_BT: Tensor
    reward_BT: Tensor
    discount_BT: Tensor
    mask_BT: Tensor
    length_B: Tensor
    weight_B: Tensor
    index_B: Tensor
    first: int = 0
    copies: int = 1
    learn_BT: Tensor | None = None
    own_B: Tensor | None = None
    cut_B: Tensor | None = None

    @classmethod
    def from_rows(cls, rows: Rows, gamma: float, first: int) -> Batch:
        """Whole rows as a batch with all decisions in the loss, and weight 1 for each row.

        Args:
            rows: right-padded rows on the device.
            gamma: discount of one decision.
            first: no row has a decision before this time.
        """
        count, device = len(rows.length_B), rows.length_B.device
        return cls(
            rows.observation_BS.long(), rows.action_BT.long(), rows.reward_BT,
            discount_from_flags(rows.flag_BT, rows.length_B, gamma), ((rows.flag_BT & DECISION) != 0).float(), rows.length_B,
            torch.ones(count, device=device), torch.full((count,), -1, device=device), first,
        )  # fmt: skip

    def trim(self) -> Batch:
        """The rows without their common padding, and with `first` at the earliest decision of any row.

        Prompts and answers differ in length, and most are far shorter than the longest possible. Copies two numbers to
        the host.
        """
        first_B = (self.mask_BT > 0).float().argmax(1)
        longest, first = torch.stack([self.length_B.max(), first_B.min()]).tolist()
        longest, first = max(longest, self.first + 1), max(first, self.first)
        width = {name: longest for name in ("action_BT", "reward_BT", "discount_BT", "mask_BT", "learn_BT")}
        fields: dict[str, Any] = dict(vars(self)) | {"first": first}
        for name, times in (width | {"observation_BS": longest + 1}).items():
            fields[name] = None if fields[name] is None else fields[name][:, :times]
        return Batch(**fields)

    def to(self, device: torch.device, from_pinned: bool = False) -> Batch:
        """The batch on another device; out of pinned memory nothing waits for the copy."""
        moved: dict[str, Any] = {
            name: value.pin_memory().to(device, non_blocking=True) if from_pinned else value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def concat(self, other: Batch) -> Batch:
        """Rows of both, in this order; both of the same width, without copies or single learned decisions."""
        fields: dict[str, Any] = {
            name: torch.cat([value, getattr(other, name)])
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return Batch(**fields, first=min(self.first, other.first))

    @property
    def carry_BT(self) -> Tensor:
        """bool: steps that are neither decisions nor padding; their value is carried over."""
        time_T = torch.arange(self.mask_BT.shape[1], device=self.mask_BT.device)
        return (self.mask_BT == 0) & (time_T < self.length_B[:, None])

    def from_first_decision(self, legal: LegalActions | None = None, multi_turn: bool = False) -> Decisions:
        """The batch without the times before `first`, which have no decision; times are then those of the outputs.

        Args:
            legal: the environment's legal actions, asked once, with the whole rows; None: all actions are legal.
            multi_turn: steps without a decision may follow a decision in the same row, so values are carried over them.
        """
        first, mask = self.first, None if legal is None else legal(self.observation_BS)
        if mask is not None and mask.dim() == 3 and mask.shape[1] > 1:
            mask = mask[:, first:]
        return Decisions(
            self.action_BT[:, first:],
            self.reward_BT[:, first:],
            self.discount_BT[:, first:],
            self.mask_BT[:, first:],
            (self.mask_BT if self.learn_BT is None else self.learn_BT)[:, first:],
            self.carry_BT[:, first:] if multi_turn else None,
            mask,
            self.weight_B,
            self.observation_BS,
            self.length_B,
            first,
            self.copies,
            self.own_B,
            self.cut_B,
        )


@dataclass(frozen=True)
class Decisions:
    """A batch from its first decision on, as objectives read it: time 0 is that of the first outputs.

    Below, T counts the times from the first decision of any row to the last transition, and S = T + 1.

    Attributes:
        action_BT, reward_BT, discount_BT, mask_BT: as in `Batch`.
        learn_BT: float32, 1 at the decisions that enter the loss.
        carry_BT: bool, steps that are neither decisions nor padding; None where rows have no such step behind a decision.
        legal_BSA: bool, broadcastable, the legal actions; None where all are.
        weight_B: float32, importance weights of the rows.
        observation_BS: of the whole rows, the times before the first decision included.
        length_B: int64, transitions of the whole rows.
        first: time of the whole rows that is time 0 here.
        copies: consecutive rows with the same observations.
        own_B, cut_B: as in `Batch`.
    """

    action_BT: Tensor
    reward_BT: Tensor
    discount_BT: Tensor
    mask_BT: Tensor
    learn_BT: Tensor
    carry_BT: Tensor | None
    legal_BSA: Tensor | None
    weight_B: Tensor
    observation_BS: Tensor
    length_B: Tensor
    first: int
    copies: int
    own_B: Tensor | None = None
    cut_B: Tensor | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.length_B)

    def split(self, rows: int | None, trims: bool = False) -> Iterator[Decisions]:
        """Consecutive micro-batches of at most this many rows, a multiple of `copies`; the batch itself for None.

        trims: each without the padding that all its rows have; a number is copied to the host for each.
        """
        if rows is None or rows >= self.rows:
            yield self
            return
        for begin in range(0, self.rows, rows):
            part = self._part(begin, begin + rows)
            yield part._trimmed() if trims else part

    def by_length(self) -> tuple[Decisions, Tensor]:
        """The rows in the order of their lengths, and where each row of this batch stands in it, int64 B; without copies."""
        order_B = self.length_B.argsort(stable=True)
        moved: dict[str, Any] = {
            name: x[order_B] for name, x in vars(self).items() if isinstance(x, Tensor) and name != "legal_BSA"
        }
        if self.legal_BSA is not None and self.legal_BSA.dim() == 3 and self.legal_BSA.shape[0] > 1:
            moved["legal_BSA"] = self.legal_BSA[order_B]
        return replace(self, **moved), order_B.argsort()

    def _trimmed(self) -> Decisions:
        times = max(int(self.length_B.max()), self.first + 1)
        cut: dict[str, Any] = {"observation_BS": self.observation_BS[:, : times + 1]}
        for name in ("action_BT", "reward_BT", "discount_BT", "mask_BT", "learn_BT", "carry_BT"):
            value = getattr(self, name)
            cut[name] = None if value is None else value[:, : times - self.first]
        return replace(self, **cut)

    def _part(self, begin: int, end: int) -> Decisions:
        """Rows `begin` .. `end` - 1; a mask of legal actions that is common to all rows is kept."""
        cut: dict[str, Any] = {name: x[begin:end] for name, x in vars(self).items() if isinstance(x, Tensor)}
        if self.legal_BSA is not None and (self.legal_BSA.dim() < 3 or self.legal_BSA.shape[0] == 1):
            cut["legal_BSA"] = self.legal_BSA
        return replace(self, **cut)

    def without_own(self) -> Decisions:
        """The batch with the agent's own rows out of the loss, for objectives that clone actions."""
        return self if self.own_B is None else replace(self, learn_BT=self.learn_BT * ~self.own_B[:, None])

    def at_decisions(self, x_BS: Tensor) -> Tensor:
        """Values of observations, (B, S, ...) or (B, T, ...), without those of the last one: (B, T, ...)."""
        return x_BS[:, : self.action_BT.shape[1]]

    def from_first(self, x_BT: Tensor) -> Tensor:
        """Values at all times of the whole rows, restricted to the times of this batch."""
        return x_BT[:, self.first :]

    def legal_at(self, times: int) -> Tensor | None:
        """The mask of legal actions for the first times."""
        mask = self.legal_BSA
        return mask[:, :times] if mask is not None and mask.dim() == 3 and mask.shape[1] > 1 else mask

    @property
    def legal_BTA(self) -> Tensor | None:
        """The mask of legal actions where actions were taken."""
        return self.legal_at(self.action_BT.shape[1])

    @property
    def prompt_BS(self) -> Tensor:
        """Observations up to each row's first decision, the one that it reads included; -1 behind them, int64."""
        first_B1 = self.first + self.mask_BT.argmax(1, keepdim=True)
        is_read_BS = torch.arange(self.observation_BS.shape[1], device=self.observation_BS.device) <= first_B1
        return self.observation_BS.masked_fill(~is_read_BS, -1)

    def unique_observations(self) -> Tensor:
        """`observation_BS` with each group of `copies` equal rows once."""
        return self.observation_BS[:: self.copies]

    def expand(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs for `unique_observations`, repeated for every row; gradients of the copies add up."""
        if self.copies == 1:
            return outputs
        return {name: raw.repeat_interleave(self.copies, 0) for name, raw in outputs.items()}


def discount_from_flags(flag_BT: Tensor, length_B: Tensor, gamma: float) -> Tensor:
    """Discounts from flags: gamma, or 1 where the agent did not decide; 0 at termination and on padding.

    Args:
        flag_BT: uint8 bits as above.
        length_B: transitions that count in each row.
        gamma: discount of one decision, in [0, 1].

    Returns:
        discount_BT, float32.
    """
    decision = (flag_BT & DECISION) != 0
    ended = (flag_BT & TERMINATED) != 0
    time = torch.arange(flag_BT.shape[1], device=flag_BT.device)
    padding = time[None] >= length_B[:, None]
    discount_BT = torch.where(decision, gamma, 1.0)
    return discount_BT.masked_fill(ended | padding, 0.0)
