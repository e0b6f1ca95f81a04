"""One copy of a Gymnasium environment: how it is made, and how its state is read and set."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dqnlm.envs.gymnasium_own import Own
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


def make(id: str | None, path: str | None, arguments: dict[str, Any], count: int) -> tuple[str, str, list[Any]]:
    """Copies of the environment of an id or of a user's file.

    Returns:
        Its name, the setting that names it as it would be typed, and the copies: each a gymnasium.Env, or each an `Own`.

    Raises:
        UserError: Gymnasium is missing or cannot make this one, the user's file cannot be used, or there are both or neither.
    """
    try:
        import gymnasium  # noqa: F401
    except ImportError:
        raise UserError(
            "env=gymnasium needs the package gymnasium; install it with: pip install 'dqnlm[gymnasium]'"
        ) from None
    if id is not None and path is not None:
        raise UserError(
            f"env.id={id} and env.path={path} name two environments; set one of them to null, such as env.id=null"
        )
    if id is not None:
        return id, f"env.id={id}", [_registered(id, arguments) for _ in range(count)]
    if path is None:
        raise UserError(
            "env=gymnasium needs env.id=NAME, such as env.id=CartPole-v1, or env.path=FILE.py:CLASS for one of your own"
        )
    own = [Own(path, arguments) for _ in range(count)]
    return own[0].name, f"env.path={path}", own


def _registered(id: str, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """One copy, without Gymnasium's time limit and checks."""
    import gymnasium

    if ":" in id:
        raise UserError(
            f"env.id={id} names a module to import, and a configuration may not run code; use the id of an installed "
            "environment, without a colon, or env.path=FILE.py:CLASS for one of your own"
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


def limit(env: gymnasium.Env[Any, Any] | Own, setting: str, max_episode_steps: int | None) -> int:
    """Most steps of an episode: as given, or the environment's own limit, which is in its registration (or its own spec).

    Raises:
        UserError: there is neither.
    """
    import gymnasium

    if max_episode_steps is not None:
        return max_episode_steps
    spec = gymnasium.spec(env.spec.id) if env.spec is not None and not isinstance(env, Own) else env.spec
    steps = None if spec is None else spec.max_episode_steps
    if steps is None:
        raise UserError(f"{setting} sets no limit of steps to an episode; set env.max_episode_steps=N")
    return steps


def savable_attributes(env: gymnasium.Env[Any, Any] | Own) -> tuple[str, ...] | None:
    """Names that hold the state of a copy that was reset; None where they are not known, or a wrapper may hold more.

    Not known for any class of the user's: one derived from a class in SAVABLE may hold more than that.
    """
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
