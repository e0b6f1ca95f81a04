"""Log-likelihood of a text under a pretrained causal language model: the mean log p of its tokens, in nats."""

from __future__ import annotations

import math
from typing import Any

import torch

from dqnlm.errors import UserError
from dqnlm.rewards.pretrained import loaded
from dqnlm.rewards.text import Decoder, TextReward
from dqnlm.types import Bounds
from dqnlm.utils.paths import PathOrName


class CausalModel(TextReward):
    """Mean over the completion's tokens (the model's own) of log p(token | tokens before it), at least `floor` each.

    Prompt and completion are tokenized separately, so that no token belongs to both. An empty completion gets `floor`;
    otherwise empty answers would have the greatest likelihood.

    Args:
        device: where the model runs.
        name_or_path: folder of a saved causal model with its tokenizer (or the name of one in the local cache; nothing is
            loaded from the network).
        with_prompt: the model reads the prompt before the completion; else only the token that the model begins texts with.
        max_tokens: tokens that the model reads at most; of a longer text the beginning of the prompt, then the end of the
            completion, is left out.
        batch_size: texts in one forward.
        floor: least log p, in nats (negative).
        scale, clip, increments: see `TextReward`.

    Raises:
        UserError: transformers is not installed, there is no such model, it reads fewer tokens, or a number is out of range.
    """

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, device: torch.device | str, *,
        name_or_path: PathOrName | None, with_prompt: bool, max_tokens: int, batch_size: int, floor: float,
        scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        if not -math.inf < floor < 0:
            raise UserError(f"reward.floor is {floor}; it must be a finite number below 0, in nats, such as -10")
        self.score_bounds = Bounds(floor, 0.0)
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        if name_or_path is None:
            raise UserError(
                "reward=causal_model needs reward.name_or_path, the folder of a saved causal language model"
            )
        if max_tokens < 2 or batch_size < 1:
            raise UserError("reward.max_tokens must be 2 or more, and reward.batch_size 1 or more")
        self._words, self._model = loaded(name_or_path, str(device), "AutoModelForCausalLM", "causal_model")
        reads = getattr(self._model.config, "max_position_embeddings", None)
        if reads is not None and max_tokens > reads:
            raise UserError(f"reward.max_tokens={max_tokens}: this model reads {reads}; set reward.max_tokens={reads}")
        ends = (self._words.bos_token_id, self._words.eos_token_id)
        self._begin = next((token for token in ends if token is not None), None)
        if self._begin is None:
            raise UserError(
                f"reward.name_or_path={name_or_path}: its tokenizer has no token for the beginning of a text (bos_token or "
                "eos_token in tokenizer_config.json); add it"
            )
        self.with_prompt, self.max_tokens, self.batch_size, self.floor = with_prompt, max_tokens, batch_size, floor

    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(completions), self.batch_size):
            span = slice(start, start + self.batch_size)
            completion_ids = [self._ids(text)[: self.max_tokens - 1] for text in completions[span]]
            before = [[self._begin, *(self._ids(text) if self.with_prompt else [])] for text in prompts[span]]
            room = [self.max_tokens - len(tokens) for tokens in completion_ids]
            found += self._means([tokens[-left:] for tokens, left in zip(before, room, strict=True)], completion_ids)
        return found

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._words(text, add_special_tokens=False).input_ids
        return found

    @torch.no_grad()
    def _means(self, before: list[list[Any]], completion_ids: list[list[int]]) -> list[float]:
        rows = [torch.tensor([*prompt, *tokens]) for prompt, tokens in zip(before, completion_ids, strict=True)]
        ids_BS = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self._model.device)
        length_B1 = torch.tensor([[len(row)] for row in rows], device=ids_BS.device)
        read_BS = torch.arange(ids_BS.shape[1], device=ids_BS.device) < length_B1
        log_BTA = self._model(input_ids=ids_BS, attention_mask=read_BS.long()).logits[:, :-1].float().log_softmax(-1)
        log_BT = log_BTA.gather(-1, ids_BS[:, 1:, None]).squeeze(-1).clamp(min=self.floor).tolist()
        return [
            math.fsum(row_T[len(prompt) - 1 :][: len(tokens)]) / len(tokens) if tokens else self.floor
            for row_T, prompt, tokens in zip(log_BT, before, completion_ids, strict=True)
        ]
