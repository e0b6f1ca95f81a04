"""Inspection of a policy on a given text: Q, value, advantage, gap and probability at every position.

The text's own next token is the action taken, so that one pass over the text gives all positions.

Axes: S = X + 1 tokens of the text, of which all but the first are scored (X); K best tokens; M atoms of a return.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.data.tokenizers.base import REPLACEMENT, ByteTokenizer, Tokenizer
from dqnlm.errors import UserError
from dqnlm.evaluation.text_positions import windows
from dqnlm.heads.distributional import DistributionalHead, taken
from dqnlm.networks.noisy import set_noise
from dqnlm.ops.bootstrap import masked_q

BEST = 5  # tokens named at each position
MOST_TOKENS = 20_000  # of one page; a browser is slow with more
MOST_NUMBERS = 2**25  # raw outputs of one forward, 128 MiB in float32


@dataclass(frozen=True)
class Inspection:
    """Metrics per position on the CPU, float32 unless stated; NaN where undefined.

    Attributes:
        ids: of the whole text, S of them.
        texts: token id -> its text, for all ids in `ids` and `best_XK`.
        starts: positions (in X) at which the network's context starts anew; the first is always 0.
        num_actions: how many tokens may be chosen.
        q_X: Q of the taken token, return units; NaN where it may not be chosen.
        value_X: V, the network's output `v` where it has one, else the greatest legal Q; return units.
        advantage_X: q_X - value_X.
        gap_X: best less second best legal Q; NaN with a single legal action.
        rank_X: int64, 1 + how many legal actions have a greater Q than the taken one; 0 where it may not be chosen.
        best_XK: int64, legal actions by falling Q; where fewer than K are legal the rest have best_q_XK -inf.
        best_q_XK: their Q.
        hit_X: bool, the argmax of Q is the taken token.
        chosen_X: bool, the greedy policy would choose it (the same, unless the policy is reweighted).
        log_probability_X: of the taken token under the declared policy, nats; None where that has no probabilities.
        best_log_XK: likewise, of the best tokens.
        atoms_XM: returns of the taken token, for a distributional head; else None.
        weight_XM: probability of each atom.
    """

    ids: list[int]
    texts: dict[int, str]
    starts: list[int]
    num_actions: int
    q_X: Tensor
    value_X: Tensor
    advantage_X: Tensor
    gap_X: Tensor
    rank_X: Tensor
    best_XK: Tensor
    best_q_XK: Tensor
    hit_X: Tensor
    chosen_X: Tensor
    log_probability_X: Tensor | None
    best_log_XK: Tensor | None
    atoms_XM: Tensor | None
    weight_XM: Tensor | None


@torch.no_grad()
def inspect_text(policy: Policy, text: str) -> Inspection:
    """Scores every token of `text` but the first, in the windows of an evaluation.

    Raises:
        UserError: the run reads no tokens; the text is shorter than two tokens, too long, or has unknown characters.
    """
    ids_S = _encoded(policy, text)
    network = policy.network
    network.eval()
    set_noise(network, False)
    at_once = max(1, MOST_NUMBERS // (network.context * policy.spec.num_actions * policy.head.num_parameters))
    parts: list[dict[str, Tensor]] = []
    starts, done = [0], 0
    for block_BS, first in windows(ids_S[:-1], network.context, network.left_context):
        for observation_BS in block_BS.split(at_once):
            output = network(observation_BS.to(policy.device), first)
            rows, times = observation_BS.shape[0], observation_BS.shape[1] - first
            if network.left_context == 0:
                starts += [done + row * times for row in range(rows)]
            taken_X = ids_S[done + 1 : done + 1 + rows * times].to(policy.device)
            parts.append(_scored(policy, {name: raw.flatten(0, 1) for name, raw in output.items()}, taken_X))
            done += rows * times
    tensors = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    ids = ids_S.tolist()
    shown = set(ids) | set(tensors["best_XK"].flatten().tolist())
    texts = {token: token_text(policy.tokenizer, token) for token in sorted(shown)}
    absent = dict.fromkeys(("log_probability_X", "best_log_XK", "atoms_XM", "weight_XM"))
    legal = policy.spec.num_actions if policy.legal_A is None else int(policy.legal_A.sum())
    return Inspection(ids, texts, sorted(set(starts)), legal, **(absent | tensors))  # type: ignore[arg-type]


def _encoded(policy: Policy, text: str) -> Tensor:
    """The text as ids_S, int64, S from 2 to MOST_TOKENS."""
    if policy.tokens is None:
        raise UserError("this run's environment has no tokens, so there is no text to look at; `dqnlm eval` scores it")
    if not text:
        raise UserError("the text is empty; give at least two characters with --text or --text-file")
    ids_S = policy.tokens.encode_prompt(text).long()
    if len(ids_S) < 2:
        raise UserError(f"the text is a single token ({text!r}), and the first one is only read: give at least two")
    if len(ids_S) > MOST_TOKENS:
        raise UserError(
            f"the text has {len(ids_S):,} tokens; one page holds {MOST_TOKENS:,} at most: give a part of it"
        )
    return ids_S


def action_values(policy: Policy, output: dict[str, Tensor]) -> Tensor:
    """q_XA in return units, -inf where illegal; of two Q-functions the smaller. Raw outputs are (X, A, N)."""
    return masked_q(policy.head.q(output), policy.legal_A).float()


def has_probabilities(policy: Policy) -> bool:
    """False if no temperature has been fitted to Q: softmax(Q / 1) would then depend on the units."""
    return policy.default != "greedy"


def _scored(policy: Policy, output: dict[str, Tensor], taken_X: Tensor) -> dict[str, Tensor]:
    """The tensors of an `Inspection`, from raw outputs (X, A, N)."""
    q_XA = action_values(policy, output)
    best_q_XK, best_XK = q_XA.topk(min(BEST, q_XA.shape[-1]))
    nothing_X = torch.full_like(best_q_XK[:, 0], float("nan"))
    q_X = q_XA.gather(-1, taken_X[:, None]).squeeze(-1)
    legal_X = q_X.isfinite()
    q_X = torch.where(legal_X, q_X, nothing_X)
    value_X = output["v"].flatten(1)[:, 0].float() if "v" in output else best_q_XK[:, 0]
    gap_X = best_q_XK[:, 0] - best_q_XK[:, 1] if q_XA.shape[-1] > 1 else nothing_X
    found = {
        "q_X": q_X, "value_X": value_X, "advantage_X": q_X - value_X,
        "gap_X": torch.where(gap_X.isfinite(), gap_X, nothing_X),
        "rank_X": torch.where(legal_X, 1 + (q_XA > q_X[:, None]).sum(-1), 0),
        "best_XK": best_XK, "best_q_XK": best_q_XK,
        "hit_X": q_XA.argmax(-1) == taken_X, "chosen_X": policy.q(output).argmax(-1) == taken_X,
    }  # fmt: skip
    if has_probabilities(policy):
        log_XA = policy.logits(output, policy.declared, None).float().log_softmax(-1)
        log_X = log_XA.gather(-1, taken_X[:, None]).squeeze(-1)
        found["log_probability_X"] = torch.where(legal_X, log_X, nothing_X)
        found["best_log_XK"] = log_XA.gather(-1, best_XK)
    if isinstance(policy.head, DistributionalHead) and "q2" not in output:
        found["atoms_XM"], found["weight_XM"] = policy.head.atoms(taken(output["q"], taken_X))
    return found


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text of a single token; a byte that is no character by itself as \\xNN."""
    text = tokenizer.decode([token])
    if REPLACEMENT not in text:
        return text
    return f"\\x{token:02x}" if isinstance(tokenizer, ByteTokenizer) else text
