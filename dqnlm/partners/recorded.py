"""A partner that replays the turns of logged dialogues, independent of the agent's answers.

In a dialogue u1 u2 u3 u4 ... its first turn is u1; the agent's answer in the place of u2 is rewarded by its chrF with u2,
from 0 to 1 (Popovic 2015); its next turn is u3, and so on. The agent learns to write what people wrote there, after its own
earlier answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dqnlm.errors import UserError
from dqnlm.partners.base import Answer, Partner, Turn
from dqnlm.types import Bounds
from dqnlm.utils.paths import FilePath

LINE_BREAK = "\n"


class Recorded(Partner):
    """Replays recorded dialogues, sampled uniformly.

    Args:
        dialogues: dialogues at once.
        seed: of the generator that draws them.
        evaluating: place i plays the i-th of the held-out dialogues (modulo), every time; else the others are drawn.
        read_dialogues: (path, name of its setting) -> the turns of each dialogue of a file in DailyDialog's format, and the
            file's description.
        path: the file; None for the one of the data folder.
        heldout_fraction: share of the dialogues, at the end of the file, that is for evaluation alone.
        turn_length: most characters of a turn; a dialogue ends before a longer one.

    Raises:
        UserError: a file that cannot be read, a number out of range, or a part without a dialogue of two turns.
    """

    reward_bounds = Bounds(0.0, 1.0)

    def __init__(
        self, dialogues: int, seed: int, evaluating: bool, read_dialogues: Callable[[str | None, str], tuple[Any, Any]],
        *, path: FilePath | None, heldout_fraction: float, turn_length: int,
    ) -> None:  # fmt: skip
        if not 0 < heldout_fraction < 1 or turn_length < 1:
            raise UserError(
                "env.partner.heldout_fraction must lie between 0 and 1 (both excluded) and env.partner.turn_length be at least "
                f"1, not {heldout_fraction} and {turn_length}"
            )
        spoken, self.source = read_dialogues(path, "env.partner.path")
        kept = [turns for turns in (_short(turns, turn_length) for turns in spoken) if len(turns) > 1]
        cut = int(len(kept) * (1 - heldout_fraction))
        self._dialogues = kept[cut:] if evaluating else kept[:cut]
        if not self._dialogues:
            raise UserError(
                f"env.partner: {len(kept)} dialogues of {self.source.name} start with two turns of at most {turn_length} "
                "characters, too few for a training and a held-out part; raise env.partner.turn_length, or give another file"
            )
        self._about = (
            f"{len(kept):,} of its {len(spoken):,} dialogues begin with two turns of at most {turn_length} characters"
        )
        turns = [turn for dialogue in kept for turn in dialogue]
        self.alphabet = "".join(sorted({LINE_BREAK, *"".join(turns)}))
        self.longest_opening = self.longest_answer = max(len(turn) for turn in turns) + 1
        self.evaluating = evaluating
        self._metric = _chrf()
        self._generator = torch.Generator().manual_seed(seed)
        self._number = [i % len(self._dialogues) for i in range(dialogues)]  # of each place, which dialogue
        self._next = [1] * dialogues  # ... and the turn that the agent answers in the place of

    def begin(self, places: list[int]) -> list[str]:
        if not self.evaluating:
            drawn = torch.randint(len(self._dialogues), (len(places),), generator=self._generator).tolist()
            for place, number in zip(places, drawn, strict=True):
                self._number[place] = number
        for place in places:
            self._next[place] = 1
        return [self._dialogues[self._number[place]][0] + LINE_BREAK for place in places]

    def answer(self, places: list[int], utterances: list[str]) -> list[Answer]:
        answers = []
        for place, utterance in zip(places, utterances, strict=True):
            turns, now = self._dialogues[self._number[place]], self._next[place]
            reward = self._likeness(utterance, turns[now])
            over = now + 2 >= len(turns)  # nothing was said after what the partner would say now
            answers.append(Answer("" if over else turns[now + 1] + LINE_BREAK, reward, over))
            self._next[place] = now + 2
        return answers

    def _likeness(self, utterance: str, turn: str) -> float:
        score: float = self._metric.sentence_score(utterance.removesuffix(LINE_BREAK), [turn]).score
        return min(score / 100, 1.0)

    def demonstrate(self, generator: torch.Generator, longest: int) -> list[Turn]:
        """A recorded dialogue, up to the last turn that follows another."""
        number = torch.randint(len(self._dialogues), (), generator=generator, device=generator.device)
        turns, found = self._dialogues[int(number)], []
        for i, turn in enumerate(turns[: len(turns) // 2 * 2]):
            said = (turn + LINE_BREAK)[:longest] if i % 2 else turn + LINE_BREAK
            found.append(Turn(said, i % 2 == 1, self._likeness(said, turn) if i % 2 else 0.0))
        return found

    def notes(self) -> list[str]:
        return [f"The partner replays the turns of {self.source.origin}, independent of the answers; {self._about}."]

    def contents(self) -> dict[str, str]:
        return {"path": self.source.sha256}

    def state_dict(self) -> dict[str, Any]:
        return {
            "sha256": self.source.sha256, "number": list(self._number), "next": list(self._next),
            "generator": self._generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError where the file differs from the saved one."""
        if state["sha256"] != self.source.sha256:
            raise UserError(
                f"env.partner: {self.source.origin} is no longer the file that this run began with (its sha256 differs); put "
                "it back"
            )
        self._number, self._next = list(state["number"]), list(state["next"])
        self._generator.set_state(state["generator"].cpu())


def _short(turns: list[str], length: int) -> list[str]:
    """The turns before the first one that exceeds the length."""
    return turns[: next((i for i, turn in enumerate(turns) if len(turn) > length), len(turns))]


def _chrf() -> Any:
    """sacrebleu's chrF2. Raises UserError where it is not installed."""
    try:
        from sacrebleu.metrics import CHRF
    except ModuleNotFoundError as error:
        raise UserError(
            "a recorded partner rewards by chrF and needs the package sacrebleu: pip install 'dqnlm[text]'"
        ) from error
    return CHRF()
