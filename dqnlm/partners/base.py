"""Interface of dialogue partners: a partner opens a dialogue, answers each utterance and rewards it, on the host.

To add a partner, write a class like this in a file and name it in an option of the group `env`:

    # configs_of_mine/env/my_talk.yaml, chosen by: dqnlm train --config-dir configs_of_mine env=my_talk ...
    _target_: dqnlm.envs.dialogue.Dialogue
    ...
    partner:
      _target_: my_partner.MyPartner    # permitted by +allow_targets=[my_partner]

Positional parameters of the constructor are supplied by name, as many as it takes: `dialogues` (how many it leads at once),
`seed`, `evaluating` and `read_dialogues` (of a file in DailyDialog's format). Keyword-only parameters are the keys of its YAML.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dqnlm.types import Bounds
from dqnlm.utils.context import RunContext


class Answer(NamedTuple):
    """A partner's answer to one utterance.

    Attributes:
        text: of the answer; may be empty. Not read where the dialogue is over.
        reward: of the utterance.
        over: the dialogue ends with the utterance.
    """

    text: str
    reward: float
    over: bool


class Turn(NamedTuple):
    """One turn of a recorded dialogue.

    Attributes:
        text: of the turn, with its line break (or cut without one).
        agent: whether it stands in the agent's place.
        reward: of the turn, if the agent's.
    """

    text: str
    agent: bool
    reward: float


class Partner(ABC):
    """Base class of partners. A partner leads several dialogues at once, numbered 0, 1, 2 ...

    Attributes:
        alphabet: all characters that either side may write, the line break among them, sorted by code point.
        longest_opening: most characters that `begin` returns.
        longest_answer: most characters in an answer.
        reward_bounds: least and greatest reward of one utterance.
    """

    alphabet: str
    longest_opening: int
    longest_answer: int
    reward_bounds: Bounds

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @abstractmethod
    def begin(self, places: list[int]) -> list[str]:
        """Starts new dialogues at these indices; returns the text before the agent's first character, at least one each.

        When evaluating, a place begins the same dialogue every time.
        """

    @abstractmethod
    def answer(self, places: list[int], utterances: list[str]) -> list[Answer]:
        """Answers each utterance, given as the agent wrote it: with its line break, or cut without one."""

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        """What the agent may write after each character of whole dialogues, bool, legal_BSA; None: any character of the alphabet.

        Args:
            observation_BS: int64 ids, places in the alphabet; each row from the dialogue's first character on.
        """
        return None

    def legal_next(self, written: Sequence[str | None]) -> Tensor | None:
        """The same while dialogues are led, bool, legal_EA on the host.

        Args:
            written: the utterance so far in each dialogue; None where the partner speaks, and nothing is ruled out.
        """
        return None

    def demonstrate(self, generator: torch.Generator, longest: int) -> list[Turn] | None:
        """A demonstration dialogue for behaviour cloning; None where the partner has none.

        Args:
            generator: draws it; the dialogues that are led are left alone.
            longest: most characters of the agent's turns.

        Returns:
            Turns of both sides by turns, the partner's first.
        """
        return None

    def references(self) -> dict[str, float]:
        """Mean returns that are known without learning, for the results table; may be {}."""
        return {}

    def notes(self) -> list[str]:
        """Notes for the user about its data, one sentence each; may be []."""
        return []

    def contents(self) -> dict[str, str]:
        """Setting of the partner that names a file (or lets it be found) -> sha256 of what was read.

        A run notes them, and is not continued or scored with others.
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The complete state, random state included: tensors, numbers and texts in dicts and lists."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`; later answers are then the same."""
