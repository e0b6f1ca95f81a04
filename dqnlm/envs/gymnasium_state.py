"""One copy of a Gymnasium environment: how it is made, and how its state is read and set."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.utils import user_code

if TYPE_CHECKING:
    import gymnasium

# Where all that changes in an episode, beside the random generator, stands in these attributes, it can be saved.
# Tests play each of these on from a saved state.
SAVABLE: dict[str, tuple[str, ...]] = {
    "gymnasium.envs.classic_control.cartpole.CartPoleEnv": ("state", "steps_beyond_terminated"),
    "gymnasium.envs.classic_control.mountain_car.MountainCarEnv": ("state",),
    "gymnasium.envs.classic_control.acrobot.AcrobotEnv": ("state",),
    "gymnasium.envs.toy_text.frozen_lake.FrozenLakeEnv": ("s", "lastaction"),
    "gymnasium.envs.toy_text.cliffwalking.CliffWalkingEnv": ("s", "lastaction"),
    "gymnasium.envs.toy_text.taxi.TaxiEnv": ("s", "lastaction", "fickle_step"),
}


def name_of(id: str | None, path: str | None) -> str:
    """The environment as it is typed, `env.id=...` or `env.path=...`.

    Raises:
        UserError: neither or both are given.
    """
    if (id is None) == (path is None):
        raise UserError(
            f"env=gymnasium needs env.id=NAME of a registered environment, or env.path=FILE.py:Class, and not both: env.id is "
            f"{id}, env.path is {path}"
        )
    return f"env.id={id}" if path is None else f"env.path={path}"


@contextmanager
def blaming(path: str | None) -> Iterator[None]:
    """Turns an error of the user's own environment into one message: file, line, and what Python says."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if path is None:
            raise
        file, name = user_code.split(path, "env.path")
        raise UserError(f"env.path={path}: {name} failed: {user_code.blame(error, file)}") from error


def _own(path: str, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """One copy of a class of the user's own."""
    import gymnasium

    made = user_code.load(path, "env.path")
    with blaming(path):
        env = made(**arguments)
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"env.path={path} gives {type(env).__name__}, which is no gymnasium.Env; derive the class from it")
    for name, space in (("observation_space", gymnasium.spaces.Space), ("action_space", gymnasium.spaces.Space)):
        if not isinstance(getattr(env, name, None), space):
            raise UserError(f"env.path={path} has no {name}; set self.{name} to a gymnasium.spaces space in __init__")
    return env


def make(id: str | None, path: str | None, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """One copy, without Gymnasium's time limit and checks; `id` or `path` is None.

    Raises:
        UserError: Gymnasium is missing, or cannot make this one.
    """
    try:
        import gymnasium
    except ImportError:
        raise UserError(
            "env=gymnasium needs the package gymnasium; install it with: pip install 'dqnlm[gymnasium]'"
        ) from None
    if path is not None:
        return _own(path, arguments)
    assert id is not None, "that was required"
    if ":" in id:
        raise UserError(
            f"env.id={id} names a module to import, and a configuration may not run code; use the id of an installed "
            "environment, without a colon, or env.path=FILE.py:Class env.id=null"
        )
    reserved = sorted({"id", "max_episode_steps", "disable_env_checker", "vectorization_mode"} & set(arguments))
    if reserved:
        raise UserError(
            f"env.arguments.{reserved[0]} is set by this program; remove it (see env.id, env.max_episode_steps)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about newer versions of an environment, once for each copy
        try:
            return gymnasium.make(id, max_episode_steps=-1, disable_env_checker=True, **arguments)
        except gymnasium.error.Error as error:
            raise UserError(f"env.id={id}: Gymnasium says: {error}") from None
        except ImportError as error:
            raise UserError(f"env.id={id} needs a package that is not installed: {error}") from None
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"env.arguments={arguments} do not fit env.id={id}: {error}") from None


def limit(env: gymnasium.Env[Any, Any], name: str, max_episode_steps: int | None) -> int:
    """Most steps of an episode: as given, or the environment's own limit, which is in its registration.

    Raises:
        UserError: there is neither.
    """
    import gymnasium

    own = None if env.spec is None else gymnasium.spec(env.spec.id).max_episode_steps
    steps = own if max_episode_steps is None else max_episode_steps
    if steps is None:
        raise UserError(f"{name} sets no limit of steps to an episode; set env.max_episode_steps=N")
    return steps


def savable_attributes(env: gymnasium.Env[Any, Any]) -> tuple[str, ...] | None:
    """Names that hold the state of a copy that was reset; None where they are not known, or a wrapper may hold more."""
    import gymnasium

    bare = env.env if isinstance(env, gymnasium.wrappers.OrderEnforcing) else env
    names = SAVABLE.get(f"{type(bare).__module__}.{type(bare).__qualname__}")
    return names if names is not None and all(hasattr(bare, name) for name in names) else None


def save(env: gymnasium.Env[Any, Any], attributes: tuple[str, ...]) -> dict[str, Any]:
    """The state of a copy and of its random generator."""
    bare = env.unwrapped
    state = {name: _encode(getattr(bare, name)) for name in attributes}
    return {"state": state, "random": json.dumps(bare.np_random.bit_generator.state)}  # numbers of 128 bits


def restore(env: gymnasium.Env[Any, Any], saved: dict[str, Any]) -> None:
    """Puts back what `save` gave."""
    bare = env.unwrapped
    for name, value in saved["state"].items():
        setattr(bare, name, _decode(value))
    bare.np_random.bit_generator.state = json.loads(saved["random"])


def _encode(value: Any) -> Any:
    """NumPy as tensors and tuples as lists, which a checkpoint can hold, of the same type."""
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.array(value))
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    if isinstance(value, Tensor):
        array = value.cpu().numpy().copy()
        return array if array.ndim else array[()]
    return tuple(_decode(item) for item in value) if isinstance(value, list) else value
