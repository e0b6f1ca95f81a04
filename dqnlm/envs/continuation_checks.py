"""Checks of the continuation environment's settings."""

from __future__ import annotations

from torch import Tensor

from dqnlm.errors import UserError


def check_numbers(numbers: dict[str, int], corpus_ids: Tensor) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"env.{name} is {value}; it must be 1 or more")
    prompt_length, horizon, length = numbers["prompt_length"], numbers["horizon"], len(corpus_ids)
    if length < prompt_length + horizon:
        raise UserError(
            f"The text has {length} tokens, but an episode needs env.prompt_length + env.horizon = {prompt_length} + "
            f"{horizon} = {prompt_length + horizon}; use a longer text or shorter episodes"
        )


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"env.{key} is {value!r}; it must be one of: {', '.join(choices)}")


def check_tokens(
    legal_mask_A: Tensor | None, eos_id: int | None, transition: str, stop_token: str | None, allowed: str | None
) -> None:
    """A stop token must be one character of the allowed ones, and needs `transition: free`."""
    if stop_token is not None and len(stop_token) != 1:
        raise UserError(f"env.stop_token is {stop_token!r}; it must be one character, or null for none")
    if stop_token is not None and transition == "teacher":
        raise UserError(
            f"env.stop_token is {stop_token!r}, but under env.transition=teacher the next token is always the "
            "reference's; use env.transition=free, or env.stop_token=null"
        )
    if allowed == "" or (legal_mask_A is not None and not bool(legal_mask_A.any())):
        raise UserError("env.allowed leaves no token to choose; name at least one character, or null for all")
    if (stop_token is None) != (eos_id is None):
        raise ValueError(f"stop_token {stop_token!r} and eos_id {eos_id} must both be given or both be None")
    if eos_id is not None and legal_mask_A is not None and not bool(legal_mask_A[eos_id]):
        raise UserError(f"env.stop_token {stop_token!r} is not among env.allowed; add it there, or set it to null")
