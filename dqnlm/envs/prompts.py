"""Completions of prompts, with a reward for the finished text: any prompts, any reward, no references needed."""

from __future__ import annotations

from typing import ClassVar

from dqnlm.envs.prompted import Prompted


class Completions(Prompted):
    """As `Prompted`; a completion continues its prompt without anything between, and ends with the tokenizer's end token."""

    task: ClassVar[str] = "prompts"  # type: ignore[misc]
