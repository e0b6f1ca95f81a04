"""One rank's share of a run: its part of the environments, of the batch, of the replay buffer and of the logged rows."""

from __future__ import annotations

from typing import Any

from dqnlm.errors import UserError
from dqnlm.utils.ranks import Ranks

Config = dict[str, Any]
DIVIDED = (("env", "num_envs"), ("trainer", "batch_size"), ("buffer", "capacity"), ("pretraining", "batch_size"))
EXACTLY = ("num_envs", "batch_size")  # the others are limits, and are rounded up


def share_of(config: Config, ranks: Ranks) -> Config:
    """The settings of this rank: numbers for the whole run divided by the ranks, and a seed of its own.

    Raises:
        UserError: one of them cannot be divided.
    """
    if ranks.world == 1:
        return config
    _require_equal_demonstrations(config["trainer"], ranks.world)
    divided = {group: dict(config[group]) for group, _ in DIVIDED}
    for group, key in DIVIDED:
        value = config[group].get(key)
        if value is None:
            continue
        unit = ranks.world * _together(config["env"], key)
        if key in EXACTLY and value % unit:
            low, high = value // unit * unit, (value // unit + 1) * unit
            near = f"{low} or {high}" if low else str(high)
            raise UserError(
                f"{group}.{key}={value} is shared by {ranks.world} processes, each with as much"
                + (f" in groups of {unit // ranks.world} that belong together" if unit > ranks.world else "")
                + f": set it to {near}"
            )
        divided[group][key] = -(-value // ranks.world)
    return config | divided | {"seed": ranks.seed(config["seed"])}


def _together(env: Config, key: str) -> int:
    """Environments, or rows of a batch, that belong together: guesses at the same places, answers to the same prompt."""
    return int(env.get("guesses_per_position", 1) * (env.get("samples_per_prompt", 1) if key == "num_envs" else 1))


def _require_equal_demonstrations(trainer: Config, world: int) -> None:
    """Raises UserError where the demonstrations of a batch cannot be shared."""
    wanted = round(trainer["demonstration_fraction"] * trainer["batch_size"])
    if wanted % world:
        near = (wanted // world + 1) * world / trainer["batch_size"]
        raise UserError(
            f"trainer.demonstration_fraction={trainer['demonstration_fraction']} is {wanted} of trainer.batch_size="
            f"{trainer['batch_size']} rows, which {world} processes cannot share equally: set it to {near:.4g}"
        )


def logged_rows_of(count: int, ranks: Ranks) -> int:
    """How many of `count` logged rows this rank holds, at most."""
    return -(-count // ranks.world)
