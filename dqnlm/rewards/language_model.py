"""Log-likelihood of a text under an n-gram model of the training text (`rewards.ngram`), in nats."""

from __future__ import annotations

import functools
import math

import numpy as np
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.rewards.ngram import NgramModel
from dqnlm.rewards.text import Decoder, Ids, TextReward
from dqnlm.types import Bounds


class LanguageModel(TextReward):
    """log p of each token given the prompt and the tokens before it, or their mean at the last decision.

    The sum over an episode of the rewards per token is the log-likelihood of its text. A stop token is a token like any
    other here: the end of a text is part of its likelihood.

    Args:
        train_ids: 1-D, ids of the training text, which the model is trained on.
        order: n, 1 to 6; the context is the n - 1 tokens before a token.
        per_token: reward log p of each token; else the mean at the last decision.
        floor: least log p, in nats (negative): bounds the penalty of one impossible token.
        offset: added to each log p, in nats: with the training text's own nats a token, its tokens are worth 0 on average, and
            returns of soft objectives start near the value of a cloned policy, 0. It changes no optimum of a fixed length.
        scale, clip: see `TextReward`.

    Raises:
        UserError: a floor that is no finite negative number, an order outside 1..6, or no training text.
    """

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, train_ids: Tensor, *,
        order: int, per_token: bool, floor: float, offset: float, scale: float, clip: float | None,
    ) -> None:  # fmt: skip
        del eos_id
        if not -math.inf < floor < 0:
            raise UserError(f"reward.floor is {floor}; it must be a finite number below 0, in nats, such as -10")
        require_training_text(train_ids, "language_model")
        if not math.isfinite(offset):
            raise UserError(f"reward.offset is {offset}; it must be a finite number of nats, such as 0.0")
        self.per_token, self.floor, self.offset = per_token, floor, offset
        self.score_bounds = Bounds(floor + offset, offset)
        super().__init__(num_actions, tokenizer, None, scale=scale, clip=clip, increments=False)
        self.model = trained(train_ids, num_actions, order)

    def score_ids(self, prompts: list[Ids], completions: list[Ids], references: list[Ids]) -> list[float]:
        return [math.fsum(scores) / len(scores) for scores in self.score_tokens(prompts, completions, references)]

    def score_tokens(self, prompts: list[Ids], completions: list[Ids], references: list[Ids]) -> list[list[float]]:
        reach = self.model.order - 1
        token_BL = np.full((len(completions), reach + max(map(len, completions))), -1)
        for row_L, prompt, completion in zip(token_BL, prompts, completions, strict=True):
            before = prompt[max(len(prompt) - reach, 0) :]
            row_L[reach - len(before) : reach + len(completion)] = before + completion
        log_BL = np.maximum(self.model.log_probabilities(token_BL)[:, reach:], self.floor) + self.offset
        return [row_L[: len(completion)].tolist() for row_L, completion in zip(log_BL, completions, strict=True)]


def require_training_text(train_ids: Tensor, name: str) -> None:
    """Raises UserError where the named reward has no training text."""
    if train_ids.numel() == 0:
        raise UserError(
            f"reward={name} is made from the training text, and here is none (dqnlm eval --data-path holds the whole text out): "
            "leave --data-path out"
        )


@functools.lru_cache(maxsize=4)  # an evaluation builds its environment, and so the reward, many times
def trained(train_ids: Tensor, num_tokens: int, order: int) -> NgramModel:
    """Trains the model of a text, cached by the identity of the tensor."""
    return NgramModel(train_ids.cpu().numpy().astype(np.int64), num_tokens, order)
