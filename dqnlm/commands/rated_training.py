"""The command that trains on ratings; `dqnlm rate` shows it when it ends."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

from dqnlm.config.composition import quoted
from dqnlm.data.trajectories.ratings import Ratings
from dqnlm.runs.directory import RunDirectory
from dqnlm.runs.reading import command_line

OFFLINE_ROUNDS = 1000  # in the command that is proposed at the end
# What of a run on text is kept in that command: its data and task are another.
KEPT_OF_TEXT = ("network", "device=", "threads=", "seed=", "logger=", "+allow_targets=")


def command_on_text(ratings: Ratings, typed: list[str]) -> str:
    """A command that trains on the ratings alone, with the network of the command `typed`."""
    kept = [word for word in typed if word.startswith(KEPT_OF_TEXT) and "=" in word]
    pretrained = "+experiment=logged_pretrained" in typed
    own = [f"+experiment=logged{'_pretrained' * pretrained}", f"data.path={_quoted(ratings.path)}"]
    own += ["data.heldout_by=row"] if len({prompt for prompt, _ in ratings.rewards}) == 1 else []
    own += ["data.reward_scaling=none"] if _may_be_constant(list(ratings.rewards.values())) else []
    if not pretrained and not any(word.startswith(("network=pretrained", "network.context=")) for word in kept):
        longest = max(len(prompt) + len(completion) for prompt, completion in ratings.rewards)
        own.append(f"network.context={longest}")  # a token a character, and the end token
    return shlex.join(["dqnlm", "train", *own, *kept, f"trainer.offline_rounds={OFFLINE_ROUNDS}"])


def _may_be_constant(rewards: list[float]) -> bool:
    """Whether all rewards may be equal once a tenth of them is held out."""
    others = len(rewards) - max(Counter(rewards).values())
    return others <= max(1, round(0.1 * len(rewards)))


def training_command(path: Path, folder: Path) -> str:
    """The run's own command with these ratings as its data."""
    replaced = ("data=", "data.", "output_dir=", "hydra.", "trainer.rollouts=", "trainer.offline_rounds=", "+debug=")
    kept = [word for word in typed(folder) if "=" in word and not word.startswith(replaced)]
    own = [
        "data=trajectories",
        f"data.path={_quoted(path)}",
        "trainer.rollouts=0",
        f"trainer.offline_rounds={OFFLINE_ROUNDS}",
    ]
    return shlex.join(["dqnlm", "train", *kept, *own])


def typed(folder: Path) -> list[str]:
    """The words of the command that began the run."""
    return command_line(RunDirectory(folder))


def _quoted(path: Path) -> str:
    """Quotes a value for Hydra's grammar, in which a space or a comma is special; a plain name stays as it is, to be read."""
    return str(path) if re.fullmatch(r"[\w./-]+\.jsonl?", str(path), re.ASCII) else quoted(path)
