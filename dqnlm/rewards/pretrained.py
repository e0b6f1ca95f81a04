"""Loads models of `transformers` that score texts, from a folder on disk."""

from __future__ import annotations

import functools
from typing import Any

from dqnlm.errors import UserError
from dqnlm.utils import hub
from dqnlm.utils.weight_files import require_readable


@functools.lru_cache(maxsize=4)  # an evaluation builds its environment, and so the reward, many times
def loaded(name_or_path: str, device: str, auto_class: str, reward: str) -> tuple[Any, Any]:
    """Loads (tokenizer, model) in evaluation mode; nothing is loaded from the network.

    Args:
        name_or_path: folder of a saved model with its tokenizer, or the name of one in the local cache.
        device: where it runs.
        auto_class: name of the class of `transformers` that reads it.
        reward: the option that asks, for messages.

    Raises:
        UserError: transformers is not installed, or there is no such model.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"reward={reward} needs the package transformers, which is not installed: pip install 'dqnlm[pretrained]'"
        ) from error
    require_readable(name_or_path, "reward.name_or_path")
    try:
        with hub.local_copies():
            words = transformers.AutoTokenizer.from_pretrained(name_or_path, local_files_only=True)
            model = getattr(transformers, auto_class).from_pretrained(name_or_path, local_files_only=True)
    except (OSError, ValueError) as error:
        what = "sequence classifier" if "Classification" in auto_class else "causal language model"
        raise UserError(
            f"reward.name_or_path={name_or_path}: no {what} with its tokenizer can be read there "
            f"({str(error).splitlines()[0]})"
        ) from error
    return words, model.to(device).eval()
