"""A reward defined by a user's Python function: `reward=function reward.path=my_rewards.py:score`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.rewards.base import Episodes
from dqnlm.rewards.calling import Call
from dqnlm.rewards.text import Decoder, Ids, TextReward
from dqnlm.types import Bounds
from dqnlm.utils import user_code
from dqnlm.utils.float32 import GREATEST, as_float
from dqnlm.utils.paths import CodePath

SETTING = "reward.path"


class FunctionReward(TextReward):
    """Calls `score(prompts, completions, references)` with three lists of texts, one entry per finished episode.

    Further parameters are columns of the data (`rewards.calling`).

    The function returns one number for each completion; with `per_token`, a list of one number a token for each. A list, an
    array or a tensor will do. A reference is "" where there is none. The stop token is no part of a completion.

    Args:
        path: FILE.py:FUNCTION. It is run, see `dqnlm.utils.user_code`.
        per_token: the function returns a number for each token.
        low: the least number it returns; None: there is no such bound.
        high: the greatest; None: there is none. Q-values are scaled by these two (head.loss=logistic needs both).
        scale, clip, increments: see `TextReward`.

    Raises:
        UserError: no path, no permission, no such file or function, an error in it, or low not below high; from `judge`,
            an error in the function, or a result of the wrong form.
    """

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, *,
        path: CodePath | None, per_token: bool, low: float | None, high: float | None,
        scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        self.per_token = per_token
        self.score_bounds = Bounds(-math.inf if low is None else low, math.inf if high is None else high)
        if not self.score_bounds.low < self.score_bounds.high:
            raise UserError(f"reward.low={low} must be below reward.high={high}")
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        if path is None:
            raise UserError(
                "reward=function needs reward.path=FILE.py:FUNCTION, such as reward.path=my_rewards.py:score"
            )
        self.path, self.file = path, user_code.split(path, SETTING, "function")[0]
        function = user_code.load(path, SETTING, "function")
        try:
            self._function = Call(function)
        except TypeError as error:
            name = path.rpartition(":")[2]
            raise UserError(
                f"{SETTING}={path}: it is called with three lists, and {name}{inspect.signature(function)} takes others "
                f"({error})\n  write: def {name}(prompts, completions, references)"
            ) from error
        self._columns: dict[str, list[Any]] = {}
        self._index: list[int] | None = None  # of the prompts of the episodes that are judged

    def use_columns(self, columns: dict[str, list[Any]]) -> None:
        """Hands the data's columns to the function.

        Raises:
            UserError: it requires one that the data has not.
        """
        self._columns = columns
        self._require_columns()

    def _require_columns(self) -> None:
        if missing := self._function.missing(self._columns):
            there = ", ".join(self._columns) or "none"
            raise UserError(
                f"{SETTING}={self.path}: the function takes {', '.join(missing)}, which is no column of the data (columns beside "
                f"the prompt: {there}; data=prompts has them)"
            )

    def judge(self, episodes: Episodes) -> Tensor:
        """See `TextReward.judge`; the columns are those of each episode's prompt."""
        self._require_columns()
        numbers = episodes.prompt_index_B
        if self._columns and self.increments:
            raise UserError("reward.increments=true scores parts of texts, without the columns of the data: set it to false")
        self._index = None if numbers is None else numbers.tolist()
        return super().judge(episodes)

    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        answer = self._call(prompts, completions, references)
        return [self._number(value, f"for completion {i + 1}") for i, value in enumerate(answer)]

    def score_tokens(self, prompts: list[Ids], completions: list[Ids], references: list[Ids]) -> list[list[float]]:
        answer = self._call(self.texts(prompts, self.tokenizer.decode_prompt), self.texts(completions), self.texts(references))
        found = []
        for i, (values, completion) in enumerate(zip(answer, completions, strict=True)):
            row = _as_list(values)
            if row is None or len(row) != len(completion):
                got = f"{values!r:.60}" if row is None else f"{len(row)} numbers"
                raise self._wrong(
                    f"returned {got} for completion {i + 1}, which has {len(completion)} tokens (reward.per_token=true)"
                )
            found.append([self._number(v, f"for token {t + 1} of completion {i + 1}") for t, v in enumerate(row)])
        return found

    def _call(self, prompts: list[str], completions: list[str], references: list[str]) -> Sequence[Any]:
        try:
            places = self._index or []
            columns = {name: [values[i] for i in places] for name, values in self._columns.items()}
            returned = self._function((prompts, completions, references), columns)
        except user_code.ERRORS as error:
            raise UserError(f"{SETTING}={self.path}: {user_code.blame(error, self.file)}") from error
        answer = _as_list(returned)
        if answer is None:
            raise self._wrong(
                f"returned {returned!r:.60} where a list of {len(completions)} is meant, one for each completion"
            )
        if len(answer) != len(completions):
            raise self._wrong(f"returned {len(answer)} values for {len(completions)} completions")
        return answer

    def only_scores(self) -> None:
        """Scores of any size are taken."""
        self.score_bounds = Bounds(-math.inf, math.inf)

    def _number(self, value: Any, which: str) -> float:
        if hasattr(value, "item") and getattr(value, "shape", None) == ():
            value = value.item()
        if not isinstance(value, Real):
            hint = "; for a number a token set reward.per_token=true" if _as_list(value) is not None else ""
            raise self._wrong(f"returned {value!r:.60} {which} where a number is meant{hint}")
        number = as_float(value)
        if not abs(number) <= GREATEST:
            raise self._wrong(f"returned {number} {which}; a reward must be a finite number (in 32 bits, at most {GREATEST:.2g})")
        low, high = self.score_bounds
        if not low <= number <= high:
            raise self._wrong(
                f"returned {number} {which}, outside reward.low={low} to reward.high={high}; set these to what it can return "
                "(null: no bound)"
            )
        return number

    def _wrong(self, what: str) -> UserError:
        return UserError(f"{SETTING}={self.path}: the function {what}\n  see {self.file}")


def _as_list(value: Any) -> Sequence[Any] | None:
    """A list, tuple, array or tensor as a sequence; None if it is none."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return value if isinstance(value, (list, tuple)) else None
