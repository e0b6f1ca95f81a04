"""An n-gram language model of token ids: interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999), in numpy.

For a context h of k - 1 tokens and the shorter context h' without its first token,

    p_k(w | h) = max(a(hw) - D(a(hw)), 0) / a(h.) + (D_1 N_1(h) + D_2 N_2(h) + D_3 N_3+(h)) / a(h.) * p_k-1(w | h')
    p_0(w)     = 1 / A

where a is the count of the k-gram in the text for the longest k, and for shorter k the number of different tokens that stand
before it; a(h.) sums it over w; N_i(h) is the number of w with a(hw) = i (3+: 3 or more). With n_i k-grams of a = i and
Y = n_1 / (n_1 + 2 n_2), the discounts are D_i = i - (i + 1) Y n_i+1 / n_i for i = 1, 2, 3 (3: also of larger a), and
D(0) = 0. Where these counts give none between 0 and i (few k-grams: a small alphabet, a short text), they are 1/2, 1, 3/2.
For a context that the text does not have, p_k is p_k-1.

k-grams are numbered in order; a k-gram's code is (number of its first k - 1 tokens) A + last token, so that codes stay small
whatever A and k are, and looking a text up is one binary search an order for all positions at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dqnlm.errors import UserError

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
HIGHEST_ORDER = 6
FALLBACK = np.array([0.0, 0.5, 1.0, 1.5])  # discounts of counts 0, 1, 2, 3+


class Order:
    """The k-grams of one length.

    Attributes:
        code: sorted codes; a k-gram's number is its place.
        share: by number, max(a - D, 0) / a(h.).
        rest: by number of the context, the weight of the shorter context; 1 for a context that the text does not have.
    """

    def __init__(self, code: Ids, count: Ids, context: Ids, contexts: int) -> None:
        """
        Args:
            code: sorted, one a k-gram.
            count: a of each.
            context: the number of each k-gram's first k - 1 tokens.
            contexts: how many of those there are.
        """
        kind = np.minimum(count, 3)
        discount = discounts(count)[kind]
        total = np.bincount(context, count, contexts)
        known = total > 0
        safe = np.where(known, total, 1.0)
        self.code = code
        self.share: Floats = np.maximum(count - discount, 0.0) / safe[context]
        self.rest: Floats = np.where(known, np.bincount(context, discount, contexts) / safe, 1.0)

    def find(self, code: Ids) -> Ids:
        """The numbers of k-grams by their codes; -1 where there is no such k-gram."""
        place = np.minimum(np.searchsorted(self.code, code), len(self.code) - 1)
        return np.where(self.code[place] == code, place, -1)


def discounts(count: Ids) -> Floats:
    """The discounts D(0), D(1), D(2), D(3 and more), each at most its count, from the counts of all k-grams of a length.
    """
    n = np.bincount(np.minimum(count, 5), minlength=6)[:5].astype(np.float64)
    if (n[1:] == 0).any():
        return FALLBACK
    i = np.arange(1, 4)
    found = i - (i + 1) * (n[1] / (n[1] + 2 * n[2])) * n[2:] / n[1:4]
    return np.append(0.0, found) if ((found >= 0) & (found <= i)).all() else FALLBACK


class NgramModel:
    """An n-gram model trained on one sequence of ids.

    Args:
        ids: 1-D, the text.
        num_tokens: A; every id is below it.
        order: n, the longest k-gram.

    Raises:
        UserError: n outside 1..6, or a text shorter than n.
    """

    def __init__(self, ids: Ids, num_tokens: int, order: int) -> None:
        if not 1 <= order <= HIGHEST_ORDER:
            raise UserError(f"reward.order is {order}; an n-gram has 1 to {HIGHEST_ORDER} tokens")
        if len(ids) < order:
            raise UserError(f"reward.order is {order}, but the text has only {len(ids)} tokens; use a longer text")
        self.num_tokens, self.order = num_tokens, order
        self.orders = _count(ids, num_tokens, order)

    def log_probabilities(self, token_BL: Ids) -> Floats:
        """Natural logarithm of the probability of each token given those before it in its row.

        Args:
            token_BL: ids, each row one text; negative: no token (before a text's first token).

        Returns:
            log_BL, float64; undefined where there is no token.
        """
        probability_BL = np.full(token_BL.shape, 1.0 / self.num_tokens)
        context_BL = np.zeros(token_BL.shape, dtype=np.int64)  # the empty context
        for level in self.orders:
            known_BL = (context_BL >= 0) & (token_BL >= 0)
            found_BL = np.full(token_BL.shape, -1)
            found_BL[known_BL] = level.find(context_BL[known_BL] * self.num_tokens + token_BL[known_BL])
            share_BL = np.where(found_BL >= 0, level.share[found_BL], 0.0)
            mixed_BL = share_BL + level.rest[context_BL] * probability_BL
            probability_BL = np.where(known_BL, mixed_BL, probability_BL)
            context_BL = np.pad(found_BL[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        log_BL: Floats = np.log(probability_BL)
        return log_BL


def _count(ids: Ids, num_tokens: int, order: int) -> list[Order]:
    """Counts the k-grams of all orders, 1 to n."""
    # Numbers of the (k - 1)-grams by where they begin; for k = 1 the empty one.
    number = np.zeros(len(ids) + 1, dtype=np.int64)
    codes: list[Ids] = []
    counts: list[Ids] = []
    contexts = [1]
    for k in range(1, order + 1):
        every_code = number[:-1] * num_tokens + ids[k - 1 :]
        code, first, inverse, count = np.unique(every_code, return_index=True, return_inverse=True, return_counts=True)
        if counts:  # a shorter one counts the tokens before it: it is the end of so many different k-grams
            counts[-1] = np.bincount(number[first + 1], minlength=contexts[-1])
        codes.append(code)
        counts.append(count)
        contexts.append(len(code))
        number = inverse
    return [
        Order(code, count, code // num_tokens, size) for code, count, size in zip(codes, counts, contexts, strict=False)
    ]
