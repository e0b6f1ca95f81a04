"""Names of a network's outputs where several rewards are learned at once.

The reward `reward_a` is learned by the outputs `q_a`, and `q2_a` and `v_a` where an objective has them: the same features, an
output layer each. `policy` belongs to all. With one reward they are called `q`, `q2` and `v`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

VALUES = ("q", "q2", "v")


def suffix(reward: str) -> str:
    """`reward_a` -> `a`; what is no letter, digit or underscore becomes an underscore."""
    return re.sub(r"\W", "_", reward.removeprefix("reward_") or reward)


def named(output: str, reward: str) -> str:
    """`q`, `reward_a` -> `q_a`; an output that belongs to all rewards keeps its name."""
    return f"{output}_{suffix(reward)}" if output in VALUES else output


def plain(output: str, rewards: Sequence[str]) -> str:
    """`q_a` -> `q`, for the outputs of these rewards; others keep their names."""
    return {named(name, reward): name for name in VALUES for reward in rewards}.get(output, output)


def all_outputs(outputs: Sequence[str], rewards: Sequence[str]) -> tuple[str, ...]:
    """The names of all outputs, from those that objectives need beside `q`."""
    return tuple(outputs) if rewards else ("q", *outputs)


def how_many(outputs: Sequence[str], *kinds: str) -> int:
    """Outputs of these kinds (of `VALUES`) that a network has for the outputs that objectives need, of all rewards together."""
    several = any(name.startswith("q_") for name in outputs)
    return sum(name.partition("_")[0] in kinds for name in (outputs if several else ("q", *outputs)))


def first_q(outputs: Iterable[str]) -> str:
    """`q`, or with several rewards the Q-function of the first by name: what all of them have in common is read off it."""
    names = list(outputs)
    return "q" if "q" in names else next(name for name in names if name.startswith("q_"))


def all_q(outputs: Iterable[str]) -> list[str]:
    """`q`, or with several rewards the Q-function of each."""
    names = list(outputs)
    return ["q"] if "q" in names else [name for name in names if name.startswith("q_")]


def of_reward(outputs: Mapping[str, Tensor], reward: str) -> dict[str, Tensor]:
    """The outputs of one reward by their plain names, and those that belong to all."""
    own = {name: outputs[named(name, reward)] for name in VALUES if named(name, reward) in outputs}
    return own | ({"policy": outputs["policy"]} if "policy" in outputs else {})
