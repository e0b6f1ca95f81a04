"""Probability of a label under a text classifier, any sequence classifier of `transformers`."""

from __future__ import annotations

import torch

from dqnlm.errors import UserError
from dqnlm.rewards.pretrained import loaded
from dqnlm.rewards.text import Decoder, TextReward
from dqnlm.utils.paths import PathOrName


class Classifier(TextReward):
    """Probability of a label: softmax of the logits, or a sigmoid where there is one label or labels do not exclude another.

    Args:
        device: where the classifier runs.
        name_or_path: folder of a saved model with its tokenizer (or the name of one in the local cache; nothing is loaded
            from the network).
        label: the label's name, or its number as text.
        with_prompt: classify prompt and completion together, else the completion alone.
        max_tokens: longer texts are cut to so many of the classifier's tokens.
        batch_size: texts in one forward.
        scale, clip, increments: see `TextReward`.

    Raises:
        UserError: transformers is not installed, there is no such model, or it has no such label.
    """

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, device: torch.device | str, *,
        name_or_path: PathOrName | None, label: str, with_prompt: bool, max_tokens: int, batch_size: int,
        scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        if name_or_path is None:
            raise UserError("reward=classifier needs reward.name_or_path, the folder of a saved sequence classifier")
        if min(max_tokens, batch_size) < 1:
            raise UserError("reward.max_tokens and reward.batch_size must be 1 or more")
        self._words, self._model = loaded(name_or_path, str(device), "AutoModelForSequenceClassification", "classifier")
        self._label = _label_id(self._model.config.label2id, label)
        self.with_prompt, self.max_tokens, self.batch_size = with_prompt, max_tokens, batch_size

    @torch.no_grad()
    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        joined = [a + b for a, b in zip(prompts, completions, strict=True)] if self.with_prompt else completions
        found: list[float] = []
        for start in range(0, len(joined), self.batch_size):
            rows = joined[start : start + self.batch_size]
            given = self._words(rows, return_tensors="pt", padding=True, truncation=True, max_length=self.max_tokens)
            found += self._probability(self._model(**given.to(self._model.device)).logits).tolist()
        return found

    def _probability(self, logit_BL: torch.Tensor) -> torch.Tensor:
        apart = logit_BL.shape[1] == 1 or self._model.config.problem_type == "multi_label_classification"
        probability_BL = logit_BL.float().sigmoid() if apart else logit_BL.float().softmax(1)
        return probability_BL[:, self._label]


def _label_id(label2id: dict[str, int], label: str) -> int:
    if label in label2id:
        return label2id[label]
    if label.isdecimal() and int(label) in label2id.values():
        return int(label)
    raise UserError(f"reward.label={label}: the classifier has no such label; it has: {', '.join(label2id)}")
