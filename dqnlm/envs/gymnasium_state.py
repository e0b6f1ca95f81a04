"""One copy of a Gymnasium environment: making it, and saving and restoring its state."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dqnlm.errors import UserError

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


def make(id: str, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """Makes one copy, without Gymnasium's time limit and checks.

    Raises:
        UserError: Gymnasium is missing, or cannot make this one.
    """
    try:
        import gymnasium
    except ImportError:
        raise UserError(
            "env=gymnasium needs the package gymnasium; install it with: pip install 'dqnlm[gymnasium]'"
        ) from None
    if ":" in id:
        raise UserError(
            f"env.id={id} names a module to import, and a configuration may not run code; use the id of an installed "
            "environment, without a colon"
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
            raise UserError(f"env.id={id}: error of Gymnasium: {error}") from None
        except ImportError as error:
            raise UserError(f"env.id={id} needs a package that is not installed: {error}") from None
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"env.arguments={arguments} do not fit env.id={id}: {error}") from None


def limit(env: gymnasium.Env[Any, Any], max_episode_steps: int | None) -> int:
    """Most steps of an episode: as given, or the environment's own limit, which is in its registration.

    Raises:
        UserError: no limit is given or registered.
    """
    import gymnasium

    assert env.spec is not None, "gymnasium.make gives one"
    own = gymnasium.spec(env.spec.id).max_episode_steps
    steps = own if max_episode_steps is None else max_episode_steps
    if steps is None:
        raise UserError(f"env.id={env.spec.id} sets no limit of steps to an episode; set env.max_episode_steps=N")
    return steps


def savable_attributes(env: gymnasium.Env[Any, Any]) -> tuple[str, ...] | None:
    """Names of the attributes that hold the state of a reset copy; None if unknown, or if a wrapper may hold more."""
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
    """Restores a state of `save`."""
    bare = env.unwrapped
    for name, value in saved["state"].items():
        setattr(bare, name, _decode(value))
    bare.np_random.bit_generator.state = json.loads(saved["random"])


def _encode(value: Any) -> Any:
    """Converts NumPy values to tensors and tuples to lists, which a checkpoint can hold."""
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.array(value))
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    if isinstance(value, Tensor):
        array = value.cpu().numpy().copy()
        return array if array.ndim else array[()]
    return tuple(_decode(item) for item in value) if isinstance(value, list) else value
