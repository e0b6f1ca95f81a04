"""A pretrained model's chat template: turns of a conversation -> the text that the model was trained to read.

The template is Jinja of the model's own files; transformers renders it in a sandbox that reaches no code outside the template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dqnlm.data.tokenizers.pretrained import read_text, settings_of
from dqnlm.errors import UserError

TEMPLATE = "chat_template.jinja"
Messages = Sequence[Mapping[str, Any]]  # {"role": "user", "content": "..."} each


class ChatTemplate:
    """The template of a model's folder, or of OWNER/NAME on the Hub.

    Raises:
        UserError: the model has none.
    """

    def __init__(self, where: str) -> None:
        settings = settings_of(where, "tokenizer_config.json")
        template = read_text(where, TEMPLATE) or settings.get("chat_template")
        if not isinstance(template, str):
            raise UserError(
                f"data.tokenizer={where}: the data has `messages`, and this model has no chat template ({TEMPLATE}, or "
                "chat_template in tokenizer_config.json) to write them as a text. Use a model that was trained on conversations, "
                "or give the data a field `prompt`"
            )
        self.template, self.where = template, where
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        found = {name: settings.get(name) for name in names}
        self.special = {n: t.get("content") if isinstance(t, dict) else t for n, t in found.items() if t is not None}

    def render(self, messages: Messages, place: str, add_generation_prompt: bool) -> str:
        """The conversation as a text.

        Args:
            messages: its turns.
            place: for messages of errors.
            add_generation_prompt: end with the beginning of an assistant's turn.

        Raises:
            UserError: the template refuses these turns.
        """
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            special: dict[str, Any] = self.special
            texts: Any = render_jinja_template(
                conversations=[[dict(turn) for turn in messages]], chat_template=self.template,
                add_generation_prompt=add_generation_prompt, **special,
            )[0]  # fmt: skip
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise UserError(f"{place}: the chat template of {self.where} cannot write these messages: {error}") from error
        return str(texts[0])
