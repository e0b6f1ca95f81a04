"""Multi-turn dialogues: the agent writes character by character, and a partner answers each line with one line.

A row is one whole episode. With P characters of opening, k of an utterance and n of an answer:

    time         0 ... P-2     P-1 ... P+k-2                   P+k-1 ... P+k+n-2
    observation  the opening   its last; the utterance         the utterance's last; the answer but its last
    step         no decision   a decision each                 no decision: the answer comes whatever is chosen

then the next utterance, and so on. An utterance ends with its line break, or at `utterance_length` characters, and its
reward stands at its last character. The row terminates there when the partner ends the dialogue or after `max_turns` utterances.
Steps without a decision carry the value of what follows, so the end of one utterance is worth the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dqnlm.envs.base import StepEnvironment
from dqnlm.errors import UserError
from dqnlm.partners.base import Answer, Partner, Turn
from dqnlm.rewards.base import discounted_length
from dqnlm.types import DECISION, TERMINATED, Bounds, Rows, TaskSpec, TimeStep
from dqnlm.utils.context import RunContext

LINE_BREAK = "\n"


class Dialogue(StepEnvironment):
    """E parallel dialogues; the partner runs on the host, with one transfer in each direction per step.

    Args:
        device: where observations live and actions are expected.
        make_partner: node of the configuration -> the partner, which knows seed, number of dialogues and whether it
            evaluates.
        num_envs: E.
        utterance_length: most characters in an utterance, line break included.
        max_turns: utterances of the agent in an episode.
        partner: node of the partner.

    Raises:
        UserError: a number below 1, or a partner whose alphabet or lengths cannot be.
    """

    def __init__(
        self,
        device: torch.device,
        make_partner: Callable[[dict[str, Any]], Partner],
        *,
        num_envs: int,
        utterance_length: int,
        max_turns: int,
        partner: dict[str, Any],
    ) -> None:
        numbers = {"num_envs": num_envs, "utterance_length": utterance_length, "max_turns": max_turns}
        for name, value in numbers.items():
            if value < 1:
                raise UserError(f"env.{name} is {value}; it must be 1 or more")
        self.device, self.num_envs = torch.device(device), num_envs
        self.utterance_length, self.max_turns = utterance_length, max_turns
        self.partner = make_partner(partner)
        self.alphabet: str = self.partner.alphabet
        self._name = type(self.partner).__name__
        self._check_partner()
        self._id = {character: i for i, character in enumerate(self.alphabet)}
        answers = (max_turns - 1) * self.partner.longest_answer
        self.row_transitions = self.partner.longest_opening - 1 + max_turns * utterance_length + answers
        self.spec = TaskSpec(
            num_actions=len(self.alphabet), num_tokens=len(self.alphabet), alphabet=self.alphabet,
            row_transitions=self.row_transitions, episode_steps=self.row_transitions, stores_actions=False, multi_turn=True,
        )  # fmt: skip  # an opening has at least one character, so the first decision may be at time 0
        self._coming = [""] * num_envs  # what the partner has said and the agent has not yet read
        self._written = [""] * num_envs  # of the utterance
        self._turns = [0] * num_envs  # utterances finished in this episode

    def check(self, context: RunContext) -> None:
        self.partner.check(context)

    def contents(self) -> dict[str, str]:
        return {f"partner.{name}": checksum for name, checksum in self.partner.contents().items()}

    def _check_partner(self) -> None:
        if self.alphabet != "".join(sorted(set(self.alphabet))) or LINE_BREAK not in self.alphabet:
            raise UserError(
                f"env.partner: the alphabet of {self._name}, {self.alphabet!r}, must name each character once, sorted by code "
                "point, and the line break among them"
            )
        if self.partner.longest_opening < 1 or self.partner.longest_answer < 0:
            raise UserError(
                f"env.partner: {self._name} has longest_opening {self.partner.longest_opening} and longest_answer "
                f"{self.partner.longest_answer}; the first must be at least 1, the second at least 0"
            )

    def reset(self) -> Tensor:
        return self._tensor(self._begin(list(range(self.num_envs))))

    def _tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self.device)

    def _begin(self, places: list[int]) -> list[int]:
        """Starts new episodes; returns the first character of each."""
        openings = self.partner.begin(places)
        for place, opening in zip(places, openings, strict=True):
            if not opening:
                raise UserError(
                    f"env.partner: {self._name} began with an empty text; the page needs one character or more"
                )
            self._coming[place] = self._readable(opening, self.partner.longest_opening)
            self._written[place], self._turns[place] = "", 0
        return [self._read(place) for place in places]

    def _readable(self, text: str, longest: int) -> str:
        """Raises UserError for a partner's text that contradicts the partner's attributes."""
        unknown = [character for character in text if character not in self._id]
        if unknown or len(text) > longest:
            why = (
                f"has {unknown[0]!r}, which its alphabet has not" if unknown else f"is longer than {longest} characters"
            )
            raise UserError(f"env.partner: {self._name} wrote {text!r}, which {why}; correct the partner")
        return text

    def _read(self, place: int) -> int:
        """The next character of the partner's text."""
        character, self._coming[place] = self._coming[place][0], self._coming[place][1:]
        return self._id[character]

    def step(self, action_E: Tensor) -> TimeStep:
        actions = action_E.tolist()
        decides = [not coming for coming in self._coming]
        observations = [
            action if d else self._read(e) for e, (action, d) in enumerate(zip(actions, decides, strict=True))
        ]
        finished = [e for e, d in enumerate(decides) if d and self._write(e, actions[e])]
        rewards, over = [0.0] * self.num_envs, [False] * self.num_envs
        if finished:
            for e, answer in zip(finished, self._answers(finished), strict=True):
                rewards[e], over[e] = answer.reward, answer.over
        flags = [d * DECISION + o * TERMINATED for d, o in zip(decides, over, strict=True)]
        following, ended = list(observations), [e for e, o in enumerate(over) if o]
        if ended:
            for e, first in zip(ended, self._begin(ended), strict=True):
                following[e] = first
        episode_end_E = torch.tensor(over, device=self.device)
        return TimeStep(
            self._tensor(observations), torch.tensor(rewards, device=self.device),
            torch.tensor(flags, dtype=torch.uint8, device=self.device), episode_end_E, self._tensor(following), episode_end_E,
        )  # fmt: skip

    def _write(self, place: int, action: int) -> bool:
        """Appends a character; returns whether the utterance is finished."""
        self._written[place] += self.alphabet[action]
        return self.alphabet[action] == LINE_BREAK or len(self._written[place]) == self.utterance_length

    def _answers(self, places: list[int]) -> list[Answer]:
        """Passes the finished utterances to the partner; its answers are read from the next step on."""
        answers = self.partner.answer(places, [self._written[place] for place in places])
        found, (low, high) = [], self.partner.reward_bounds
        for place, answer in zip(places, answers, strict=True):
            if not low <= answer.reward <= high:
                raise UserError(
                    f"env.partner: {self._name} gave the reward {answer.reward}, outside its reward_bounds {low:g} to {high:g}; "
                    "correct the partner"
                )
            self._turns[place] += 1
            over = answer.over or self._turns[place] == self.max_turns
            self._written[place] = ""
            self._coming[place] = "" if over else self._readable(answer.text, self.partner.longest_answer)
            found.append(answer._replace(over=over))
        return found

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        """What the partner's rules let the agent write after each character of whole rows, legal_BSA."""
        return self.partner.legal(observation_BS)

    def legal_next(self, observation_E: Tensor) -> Tensor | None:
        """The same for the next action, legal_EA; where the partner speaks everything, as the action is ignored."""
        written = [None if coming else text for coming, text in zip(self._coming, self._written, strict=True)]
        legal_EA = self.partner.legal_next(written)
        return None if legal_EA is None else legal_EA.to(self.device)

    def demonstrate(self, count: int, generator: torch.Generator, with_rewards: bool) -> Rows | None:
        """The partner's demonstration dialogues, cut after `max_turns` turns of the agent."""
        drawn = [self.partner.demonstrate(generator, self.utterance_length) for _ in range(count)]
        found = [turns[: 2 * self.max_turns] for turns in drawn if turns is not None]
        return self._rows(found, with_rewards) if len(found) == count else None

    def _rows(self, dialogues: list[list[Turn]], with_rewards: bool) -> Rows:
        """Whole dialogues as rows, right-padded."""
        shape = (len(dialogues), self.row_transitions)
        observation_BS = torch.zeros(shape[0], shape[1] + 1, dtype=torch.int64)
        reward_BT, flag_BT = torch.zeros(shape), torch.zeros(shape, dtype=torch.uint8)
        length_B = torch.zeros(shape[0], dtype=torch.int64)
        for b, turns in enumerate(dialogues):
            end = 0  # characters on the page; the step to character t is t - 1
            for turn in turns:
                begin, end = end, end + len(turn.text)
                observation_BS[b, begin:end] = torch.tensor([self._id[character] for character in turn.text])
                if turn.agent:
                    flag_BT[b, begin - 1 : end - 1] = DECISION
                    reward_BT[b, end - 2] = turn.reward if with_rewards else 0.0
            flag_BT[b, end - 2] |= TERMINATED
            length_B[b] = end - 1
        rows = (observation_BS, observation_BS[:, 1:], reward_BT, flag_BT, length_B)
        return Rows(*(x.to(self.device) for x in rows))

    def return_bounds(self, gamma: float) -> Bounds:
        """Rewards come at most one a decision and `max_turns` in all: bounds times 1 + gamma + ... + gamma^(max_turns - 1)."""
        length, (low, high) = discounted_length(gamma, self.max_turns), self.partner.reward_bounds
        return Bounds(min(low, 0.0) * length, max(high, 0.0) * length)

    @property
    def reward_bounds(self) -> Bounds:
        """Bounds of an utterance's reward and 0, the reward of its other characters."""
        low, high = self.partner.reward_bounds
        return Bounds(min(low, 0.0), max(high, 0.0))

    def references(self) -> dict[str, float]:
        return self.partner.references()

    def notes(self) -> list[str]:
        return self.partner.notes()

    def state_dict(self) -> dict[str, Any]:
        clocks = {"coming": list(self._coming), "written": list(self._written), "turns": list(self._turns)}
        return clocks | {"partner": self.partner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["turns"]) != self.num_envs:
            raise ValueError(f"{len(state['turns'])} dialogues were saved; this environment has {self.num_envs}")
        self._coming, self._written, self._turns = (list(state[name]) for name in ("coming", "written", "turns"))
        self.partner.load_state_dict(state["partner"])
