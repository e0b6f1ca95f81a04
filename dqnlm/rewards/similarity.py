"""Increments of the similarity to the reference: r_t = sim(g_1..t, ref) - sim(g_1..t-1, ref).

The similarity of the empty text is 0, so the rewards of an episode sum to the similarity of the final text. A token
that makes the text less similar has a negative reward.

    edit       sim = 1 - D / max(t, H), D the Levenshtein distance of g_1..t and the reference of H tokens
    ngram_f1   sim = mean over n = 1..max_n of F1_n = 2 overlap_n / (n-grams in g_1..t + n-grams in the reference),
               where overlap_n counts an n-gram at most as often as the reference has it

Bounds of the returns. Let phi_t be the similarity after t tokens. By summation by parts,
sum_{i<k} gamma^i (phi_{t+i+1} - phi_{t+i}) is a weighted mean of phi_{t+1} - phi_t, .., phi_{t+k} - phi_t, the weights
gamma^i - gamma^{i+1} (the last one gamma^{k-1}) summing to 1. So what bounds these differences bounds every return.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.rewards.base import Reward, State, StatefulReward, discounted_length
from dqnlm.types import Bounds


def build_similarity(num_actions: int, *, kind: Literal["edit", "ngram_f1"], max_n: int | None) -> Reward:
    """The similarity reward of the given kind.

    Args:
        num_actions: A.
        kind: `edit` or `ngram_f1`, see the module.
        max_n: longest n-gram that is compared; None for `edit`, which has none.

    Raises:
        UserError: an unknown kind, `ngram_f1` without max_n or with one below 1, `edit` with one.
    """
    if kind == "edit":
        if max_n is not None:
            raise UserError(f"reward.max_n is {max_n}, but reward.kind=edit compares no n-grams; set reward.max_n=null")
        return EditSimilarity(num_actions)
    if kind == "ngram_f1":
        if max_n is None:
            raise UserError("reward.kind=ngram_f1 needs reward.max_n, the longest n-gram, such as reward.max_n=4")
        return NgramF1(num_actions, max_n)
    raise UserError(f"reward.kind is {kind!r}; it must be one of: edit, ngram_f1")


class SimilarityReward(StatefulReward):
    """Turns a similarity, kept as `similarity_E` in the state, into rewards that sum to it."""

    @property
    def bounds(self) -> Bounds:
        return Bounds(-1.0, 1.0)

    @abstractmethod
    def _step_bounds(self, horizon: int) -> Bounds:
        """Bounds of the reward of one decision when the reference has `horizon` tokens."""

    @abstractmethod
    def _worst_loss(self, horizon: int) -> float:
        """The largest decrease of the similarity between two times of one episode, at least 0."""

    def return_bounds(self, gamma: float, horizon: int, endless: bool = False) -> Bounds:
        if endless and gamma > 0.0:
            return self.bounds  # of a text longer than the reference only 0 <= phi <= 1 is known
        low, high = self._step_bounds(horizon)
        length = discounted_length(gamma, horizon)
        return Bounds(max(-self._worst_loss(horizon), low * length), min(1.0, high * length))


class EditSimilarity(SimilarityReward):
    """1 - D / max(t, H), with one row of the dynamic programme of Wagner and Fischer (1974) a step.

    State: `distance_EJ` (E, H + 1), int32, D(g_1..t, ref_1..j) for j = 0..H; one more token gives

        D'(j) = min(D(j) + 1, D(j-1) + [g != ref_j], D'(j-1) + 1) = min over i <= j of c(i) + (j - i),

    where c(0) = t + 1 and c(j) is the least of the first two: a running minimum of c(i) - i.
    """

    def _step_bounds(self, horizon: int) -> Bounds:
        """One more token changes D by at most 1; at H = 1 it cannot raise it."""
        return Bounds(-1.0 / horizon if horizon > 1 else 0.0, 1.0 / horizon)

    def _worst_loss(self, horizon: int) -> float:
        """phi_t <= t / H, and H - t later steps lose at most 1 / H each: the loss is at most min(t, H - t) / H."""
        return (horizon // 2) / horizon

    def _start(self, reference_EH: Tensor) -> State:
        E, H = reference_EH.shape
        row_J = torch.arange(H + 1, dtype=torch.int32, device=reference_EH.device)
        zero_E = torch.zeros(E, device=reference_EH.device)
        return {"reference_EH": reference_EH, "distance_EJ": row_J.expand(E, -1), "similarity_E": zero_E}

    def _advance(self, state: State, action_E: Tensor) -> tuple[State, Tensor]:
        reference_EH, old_EJ = state["reference_EH"], state["distance_EJ"]
        H = reference_EH.shape[1]
        substituted_EH = old_EJ[:, :-1] + (reference_EH != action_E[:, None])
        candidate_EH = torch.minimum(old_EJ[:, 1:] + 1, substituted_EH)
        candidate_EJ = torch.cat([old_EJ[:, :1] + 1, candidate_EH], 1)
        place_J = torch.arange(H + 1, dtype=torch.int32, device=action_E.device)
        distance_EJ = torch.cummin(candidate_EJ - place_J, 1).values + place_J
        longest_E = distance_EJ[:, 0].clamp(min=H)  # D(g_1..t, nothing) is t
        similarity_E = 1.0 - distance_EJ[:, -1] / longest_E
        new = {"reference_EH": reference_EH, "distance_EJ": distance_EJ, "similarity_E": similarity_E}
        return new, similarity_E - state["similarity_E"]


class NgramF1(SimilarityReward):
    """Mean F1 of clipped n-gram counts, n = 1..max_n, without a table of n-grams.

    The lengths of the common suffixes of g_1..t with every prefix of the reference and with every earlier prefix of
    itself give the counts of the n-gram that ends at t: with L'(j) = [g_t = ref_j] (L(j-1) + 1), the reference has it
    as often as L'(j) >= n. The overlap grows by one where g had it less often before.

    Args:
        num_actions: A.
        max_n: longest n-gram, not longer than the reference.

    Raises:
        UserError: max_n below 1 or, at the first reset, above the length of the reference.
    """

    def __init__(self, num_actions: int, max_n: int) -> None:
        super().__init__(num_actions)
        if max_n < 1:
            raise UserError(f"reward.max_n is {max_n}; it must be 1 or more")
        self.max_n = max_n

    def _step_bounds(self, horizon: int) -> Bounds:
        """F1_n changes from 2o/(c+R) to 2(o+1)/(c+1+R) or 2o/(c+1+R), where o <= c < R = H - n + 1, or 0 <= c if o = 0.

        The rise is at most 2/(c+1+R) <= 2/(1+R). The fall is 2o/((c+R)(c+1+R)) <= 2c/((c+R)(c+1+R)), and since
        c/(c+R) <= 1/2 and c+1+R > R + 1, it is below 1/(1+R).
        """
        self._check(horizon)
        rise = sum(2.0 / (horizon - n + 2) for n in range(1, self.max_n + 1)) / self.max_n
        return Bounds(-rise / 2, min(1.0, rise))

    def _worst_loss(self, horizon: int) -> float:
        """2o/(c+R) - 2o/(c'+R) with o <= c <= c' <= R is at most x (1 - x) / (1 + x) for x = c / R: 3 - 2 sqrt 2."""
        return 3.0 - 2.0 * math.sqrt(2.0)

    def _check(self, horizon: int) -> None:
        if self.max_n > horizon:
            raise UserError(
                f"reward.max_n is {self.max_n}, but a reference has only {horizon} tokens (env.horizon); "
                f"use reward.max_n={horizon} or less, or a longer horizon"
            )

    def _start(self, reference_EH: Tensor) -> State:
        E, H = reference_EH.shape
        self._check(H)
        zero_EH = torch.zeros(E, H, dtype=torch.int32, device=reference_EH.device)
        return {
            "reference_EH": reference_EH,
            "generated_EH": torch.full_like(reference_EH, -1, dtype=torch.int64),  # -1 equals no token
            "reference_suffix_EH": zero_EH,
            "generated_suffix_EH": zero_EH,
            "time_E": torch.zeros(E, dtype=torch.int64, device=reference_EH.device),
            "overlap_EN": torch.zeros(E, self.max_n, dtype=torch.int32, device=reference_EH.device),
            "similarity_E": torch.zeros(E, device=reference_EH.device),
        }

    def _advance(self, state: State, action_E: Tensor) -> tuple[State, Tensor]:
        reference_EH, generated_EH, time_E = state["reference_EH"], state["generated_EH"], state["time_E"]
        H = reference_EH.shape[1]
        reference_suffix_EH = _longer_suffix(state["reference_suffix_EH"], reference_EH, action_E)
        generated_suffix_EH = _longer_suffix(state["generated_suffix_EH"], generated_EH, action_E)
        order_N = torch.arange(1, self.max_n + 1, device=action_E.device)
        # Fewer than n tokens: no suffix has length n, both counts are 0, and nothing is added.
        new_EN = _count(generated_suffix_EH, order_N) < _count(reference_suffix_EH, order_N)
        overlap_EN = state["overlap_EN"] + new_EN
        generated_EN = (time_E[:, None] + 2 - order_N).clamp(min=0)
        similarity_E = (2.0 * overlap_EN / (generated_EN + (H + 1 - order_N))).mean(1)
        # An environment that is not active may stand behind the last place; the caller keeps its old state.
        place_E1 = time_E.clamp(max=H - 1)[:, None]
        new = {
            "reference_EH": reference_EH,
            "generated_EH": generated_EH.scatter(1, place_E1, action_E[:, None]),
            "reference_suffix_EH": reference_suffix_EH,
            "generated_suffix_EH": generated_suffix_EH,
            "time_E": time_E + 1,
            "overlap_EN": overlap_EN,
            "similarity_E": similarity_E,
        }
        return new, similarity_E - state["similarity_E"]


def _longer_suffix(suffix_EH: Tensor, text_EH: Tensor, action_E: Tensor) -> Tensor:
    """Common suffix lengths one token later: 0 where the text's token is not the action, else one more than before."""
    before_EH = torch.nn.functional.pad(suffix_EH[:, :-1], (1, 0))
    return (before_EH + 1) * (text_EH == action_E[:, None])


def _count(suffix_EH: Tensor, order_N: Tensor) -> Tensor:
    """Number of suffixes of at least length n: count_EN."""
    return (suffix_EH[:, None, :] >= order_N[:, None]).sum(2)
