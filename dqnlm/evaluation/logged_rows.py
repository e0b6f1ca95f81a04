"""Offline evaluation on held-out trajectories: negative log-likelihood, and calibration of Q against returns.

eval/nll                -log probability of the logged tokens under the declared policy, nats a token
eval/nll_best           the same over the rows of the greatest returns (a quarter of them, ties included): a policy that
                         has learned which answers are good gives these a greater likelihood
eval/accuracy            share of logged tokens that the greedy policy would have chosen
eval/q_taken             mean over rows of the mean Q of the logged tokens
eval/overestimation      that, less the mean discounted return. A value learned as an upper expectile, or as a maximum,
                         predicts the best return of the log, not the mean
eval/return_correlation  Pearson's r, over rows, of the mean Q of the logged tokens with the mean discounted return of the row
eval/return_explained    1 - mean (return - Q)^2 / variance of the returns; below 0 where the mean return predicts better
eval/pair_accuracy       of two rows with the same prompt and different returns, how often the better one has the greater mean Q
                         (.5 by chance); absent without such rows

Only decisions count, and of these only legal tokens. The metrics of Q are absent where no objective
learns returns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.data.trajectories.records import Trajectory
from dqnlm.data.trajectories.rows import TokenRow, padded
from dqnlm.errors import UserError
from dqnlm.evaluation import temperature as fitting
from dqnlm.metrics import Metrics
from dqnlm.types import DECISION, TRUNCATED

_OBSERVATIONS = 2**14  # in one forward of the trunk
_NUMBERS = 2**25  # outputs at once, 128 MiB in float32
BEST_SHARE = 0.25


class DecisionBlock(NamedTuple):
    """Decisions of some rows that were read together: X of them, with raw outputs (X, A, N) by name."""

    row_X: Tensor
    taken_X: Tensor
    output: dict[str, Tensor]


class RowTotals(NamedTuple):
    """RowTotals over the decisions of each row, float64 on the CPU; `nats` has a column for each policy."""

    count_B: Tensor
    hits_B: Tensor
    q_B: Tensor
    nats_BP: Tensor


def decisions(policy: Policy, rows: Sequence[TokenRow]) -> Iterator[DecisionBlock]:
    """Yields all decisions with a legal action, in blocks of rows of similar length."""
    numbers = policy.spec.num_actions * policy.head.num_parameters * len(policy.network.projections)
    at_once = max(1, _NUMBERS // numbers)
    for places in _blocks([row.transitions for row in rows]):
        width = max(rows[i].transitions for i in places)
        block = padded([rows[i] for i in places], width, torch.int64, policy.device)
        own_BT = (block.flag_BT & DECISION) != 0
        if policy.legal_A is not None:
            own_BT &= policy.legal_A[block.action_BT]
        h_XD = policy.network.features(block.observation_BS[:, :-1])[own_BT]
        row_BT = torch.tensor(places, device=policy.device)[:, None].expand_as(own_BT)
        parts = (h_XD.split(at_once), row_BT[own_BT].split(at_once), block.action_BT[own_BT].split(at_once))
        for h, row, taken in zip(*parts, strict=True):
            yield DecisionBlock(row, taken, policy.network.project(h))


def _blocks(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row indices by increasing length, as many per block as one forward takes."""
    order, block = sorted(range(len(lengths)), key=lambda i: lengths[i]), list[int]()
    for place in order:
        if block and (len(block) + 1) * (lengths[place] + 1) > _OBSERVATIONS:
            yield block
            block = []
        block.append(place)
    yield block


def row_sums(policy: Policy, rows: Sequence[TokenRow], betas: Sequence[float]) -> RowTotals:
    """RowTotals for the declared policy, and (where that is reweighted) for the same policy with each of `betas`.

    A temperature that fits Q to the log is set in the policy, and cross-fitted here: rows with an even place are scored with
    the best one of the others, and these with theirs.

    Raises:
        UserError: no decision is left to score.
    """
    kinds = 1 + (len(betas) if policy.declared == "reweighted" else 0)
    zero_B = torch.zeros(len(rows), dtype=torch.float64)
    sums = RowTotals(zero_B, zero_B.clone(), zero_B.clone(), torch.zeros(len(rows), kinds, dtype=torch.float64))
    inverse_2 = _inverse_temperatures(policy, rows)
    for block in decisions(policy, rows):
        q_X = policy.weighed(policy.head.q, block.output).gather(-1, block.taken_X[:, None])[:, 0]
        hit_X = policy.q(block.output).argmax(-1) == block.taken_X
        log_XP = _log_probabilities(policy, block, inverse_2, betas)
        row_X = block.row_X.cpu()
        sums.count_B.index_add_(0, row_X, torch.ones(len(row_X), dtype=torch.float64))
        for total, part in ((sums.hits_B, hit_X), (sums.q_B, q_X), (sums.nats_BP, -log_XP)):
            total.index_add_(0, row_X, part.double().cpu())
    if not bool(sums.count_B.any()):
        raise UserError(
            "no held-out row of the log has a token that the policy may choose: hold out more (data.heldout_fraction)"
        )
    return sums


def _log_probabilities(policy: Policy, block: DecisionBlock, inverse_2: Tensor | None, betas: Sequence[float]) -> Tensor:
    """log_XP of the logged tokens, for the policies of `row_sums`."""
    if policy.declared == "reweighted":
        fixed, found = policy.beta, []
        try:
            for policy.beta in (fixed, *betas):
                found.append(_log_taken(policy.q(block.output), block.taken_X))
        finally:
            policy.beta = fixed
        return torch.stack(found, 1)
    if inverse_2 is None:
        return _log_taken(policy.logits(block.output, policy.declared, None), block.taken_X)[:, None]
    return _log_taken(policy.q(block.output) * inverse_2[block.row_X % 2][:, None], block.taken_X)[:, None]


def _log_taken(logit_XA: Tensor, taken_X: Tensor) -> Tensor:
    return logit_XA.float().log_softmax(-1).gather(-1, taken_X[:, None])[:, 0]


def _inverse_temperatures(policy: Policy, rows: Sequence[TokenRow]) -> Tensor | None:
    """Cross-fitted 1 / T for rows at even and at odd places, each from the other half; sets the policy's own T.

    None where the policy has nothing to fit. Of much text a part is enough: every k-th decision.
    """
    if policy.declared != "boltzmann":
        return None
    total = sum(row.decisions for row in rows)
    stride = math.ceil(total * policy.spec.num_actions / _NUMBERS)
    kept = [
        (policy.q(block.output)[::stride], block.taken_X[::stride], block.row_X[::stride] % 2)
        for block in decisions(policy, rows)
    ]
    q_XA, taken_X, half_X = (torch.cat(part) for part in zip(*kept, strict=True))
    policy.fit(1.0 / fitting.fit_inverse_temperature(q_XA, taken_X))
    found = []
    for other in (1, 0):  # of a log in which one half has no decision, all are taken
        of_X = half_X == other if bool((half_X == other).any()) else torch.ones_like(half_X, dtype=torch.bool)
        found.append(fitting.fit_inverse_temperature(q_XA[of_X], taken_X[of_X]))
    return torch.tensor(found, device=q_XA.device)


def returns_that_came(items: Sequence[Trajectory], rows: Sequence[TokenRow], gamma: float) -> Tensor:
    """Mean over each row's decisions of the discounted return, float64; NaN where it is not known.

    An episode that continues in another row continues in the next row of the same number; where there is none, the return
    is unknown.
    """
    mean_B, begins = torch.full((len(rows),), math.nan, dtype=torch.float64), dict[int, float]()
    for b in reversed(range(len(rows))):
        row, number = rows[b], items[b].episode
        value = (begins.get(number, math.nan) if number >= 0 else math.nan) if row.flag_T[-1] & TRUNCATED else 0.0
        found = []
        for reward, flag in zip(row.reward_T[::-1].tolist(), row.flag_T[::-1].tolist(), strict=True):
            value = reward + (gamma if flag & DECISION else 1.0) * value
            found += [value] if flag & DECISION else []
        mean_B[b], begins[number] = sum(found) / len(found), value
    return mean_B


def of_each_reward(items: Sequence[Trajectory], rows: Sequence[TokenRow], gamma: float) -> Tensor:
    """`returns_that_came` of each of the rewards, a row of the result for each; (R, B)."""
    places = range(1 + len(items[0].more))
    return torch.stack([returns_that_came(items, [row.of_reward(place) for row in rows], gamma) for place in places])


def best_rows(return_B: Tensor) -> Tensor:
    """bool: the rows of the greatest returns, `BEST_SHARE` of the known ones, ties with the last included."""
    known = return_B[~return_B.isnan()]
    if len(known) == 0:
        return torch.ones_like(return_B, dtype=torch.bool)
    least = known.sort(descending=True).values[math.ceil(BEST_SHARE * len(known)) - 1]
    return return_B >= least


def value_metrics(q_B: Tensor, return_B: Tensor, prompts: Sequence[str]) -> Metrics:
    """Metrics of Q against the observed return; those of the module's text."""
    known_B = ~return_B.isnan() & ~q_B.isnan()
    metrics = {"eval/q_taken": float(q_B[~q_B.isnan()].mean())}
    if not bool(known_B.any()):
        return metrics
    q, came = q_B[known_B], return_B[known_B]
    metrics["eval/overestimation"] = float((q - came).mean())
    spread = float((came - came.mean()).square().mean())
    both = math.sqrt(spread * float((q - q.mean()).square().mean()))
    alike = float(((q - q.mean()) * (came - came.mean())).mean())
    metrics["eval/return_correlation"] = alike / both if both > 0 else 0.0  # nothing varies: nothing is known
    metrics["eval/return_explained"] = 1.0 - float((came - q).square().mean()) / spread if spread > 0 else 0.0
    pairs = list(_pairs(q_B.tolist(), return_B.tolist(), prompts))
    return metrics | ({"eval/pair_accuracy": sum(pairs) / len(pairs)} if pairs else {})


def _pairs(q: list[float], came: list[float], prompts: Sequence[str]) -> Iterator[float]:
    """For each two rows of a prompt: 1 if Q orders them like their returns, 0 if reversed, .5 if equal."""
    of_prompt: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        if not math.isnan(came[place]) and not math.isnan(q[place]):
            of_prompt.setdefault(prompt, []).append(place)
    for places in of_prompt.values():
        for a, b in itertools.combinations(places, 2):
            if came[a] != came[b]:
                yield 0.5 if q[a] == q[b] else float((q[a] > q[b]) == (came[a] > came[b]))
