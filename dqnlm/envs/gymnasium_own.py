"""A Gymnasium environment that a user wrote: `env.path=FILE.py:Class`. What it does wrong is one message with file and line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np

from dqnlm.errors import UserError
from dqnlm.utils import user_code
from dqnlm.utils.float32 import GREATEST, as_float

SETTING = "env.path"


class Own:
    """One copy of the user's environment, as the bare one, with every answer checked.

    Args:
        path: FILE.py:Class. It is run, see `dqnlm.utils.user_code`.
        arguments: the class is called with these, by name.

    Raises:
        UserError: no permission, no such file or class, an error in it, or no gymnasium.Env with spaces; from `reset` and
            `step`, an error in it, or an answer that is none.
    """

    def __init__(self, path: str, arguments: dict[str, Any]) -> None:
        import gymnasium

        self.path = path
        self.file, self.name = user_code.split(path, SETTING, "class")
        own_class = user_code.load(path, SETTING, "class")
        if not (isinstance(own_class, type) and issubclass(own_class, gymnasium.Env)):
            raise self._wrong("is no Gymnasium environment", f"write: class {self.name}(gymnasium.Env)")
        with self._blamed(f" with env.arguments={arguments}"):
            self._env: gymnasium.Env[Any, Any] = own_class(**arguments)
        for space in ("observation_space", "action_space"):
            with self._blamed():
                found = getattr(self._env, space, None)
            if not isinstance(found, gymnasium.spaces.Space):
                raise self._wrong(
                    f"has {'no' if found is None else f'{found!r:.60} as'} {space}",
                    f"set self.{space} to a space of gymnasium.spaces, such as Discrete(2)",
                )
        self.observation_space: Any = self._env.observation_space
        self.action_space: Any = self._env.action_space
        self.spec = self._env.spec

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        with self._blamed():
            answer: Any = self._env.reset(seed=seed)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._answered("reset", answer, "(observation, info)")
        self._check_observation("reset", answer[0])
        return answer

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        with self._blamed():
            answer: Any = self._env.step(action)
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise self._answered("step", answer, "(observation, reward, terminated, truncated, info)")
        observation, reward, terminated, truncated, info = answer
        self._check_observation("step", observation)
        number = reward.item() if getattr(reward, "shape", None) == () else reward
        if not isinstance(number, Real) or not abs(as_float(number)) <= GREATEST:
            raise self._answered("step", reward, f"the reward, a finite number (in 32 bits, at most {GREATEST:.2g})")
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(value, bool | np.bool_):
                raise self._answered("step", value, f"{name}, True or False")
        return observation, float(number), bool(terminated), bool(truncated), info

    def _check_observation(self, method: str, observation: Any) -> None:
        """Of the space's kind and shape, and finite; a Box's limits are not asked for, as Gymnasium itself only warns."""
        space = self.observation_space
        shape = getattr(space, "shape", None)
        try:
            numbers = np.asarray(observation)
            fits = numbers.shape == shape and numbers.dtype.kind in "biuf" and bool(np.isfinite(numbers).all())
        except (TypeError, ValueError):  # such as lists of unequal lengths
            fits = False
        if fits and hasattr(space, "n"):
            fits = isinstance(numbers.item(), Integral) and 0 <= numbers.item() - int(space.start) < int(space.n)
        if not fits:
            raise self._answered(method, observation, f"an observation of the space {space}, finite")

    @contextmanager
    def _blamed(self, addition: str = "") -> Iterator[None]:
        """An error of the user's code as one message."""
        try:
            yield
        except user_code.ERRORS as error:
            raise UserError(f"{SETTING}={self.path}{addition}: {user_code.blame(error, self.file)}") from error

    def _answered(self, method: str, value: Any, meant: str) -> UserError:
        text = " ".join(f"{value!r:.80}".split())
        return self._wrong(
            f"returned {text} from {method}() where {meant} is meant", f"see {self.file}{self._line(method)}"
        )

    def _line(self, method: str) -> str:
        """Where the class itself has the method; nothing where it inherits it from elsewhere."""
        code = getattr(getattr(type(self._env), method), "__code__", None)
        return f", line {code.co_firstlineno}" if code is not None and code.co_filename == str(self.file) else ""

    def _wrong(self, what: str, hint: str) -> UserError:
        return UserError(f"{SETTING}={self.path}: {self.name} {what}\n  {hint}")
