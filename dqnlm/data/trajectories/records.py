"""The record of one logged completion with its rewards, and its validation.

A record (a line of a JSONL file, a row of a table) is an object with `prompt`, `completion`, and either `reward`, one
number for the whole completion, or `rewards`, one number for each character of it. It may have `next`, the text with which
the same episode continues (empty: the episode ended), and `episode`, an integer that the rows of one episode share. Other
fields are not read, and null is the same as not given.

A dialogue is an object with `turns` instead, a list of {"text": ..., "agent": true or false, "reward": ...}. What comes
before the agent's first turn is the prompt; an agent's turn may have a `reward`, given at its last character (default 0);
the episode ends with the agent's last turn, and later turns of the partner, which no decision reads, are dropped.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dqnlm.errors import UserError

_FIELDS = ("prompt", "completion", "reward", "rewards", "next", "episode", "turns")
_GREATEST = float(np.finfo(np.float32).max)  # rewards are kept in 32 bits


@dataclass(frozen=True)
class Trajectory:
    """One completion with its prompt and the reward of each token.

    Attributes:
        prompt: text before the first decision, at least one token.
        completion: at least one token; each token is a decision.
        rewards: one for each token of the completion; a single reward stands at the last, after zeros.
        next: text that follows within the same episode (the next observation); empty: the episode ended.
        episode: rows with the same number belong to one episode, in order; -1: an episode of its own.
        place: its file and line, for messages.
        spans: of a dialogue, the lengths in characters of the parts of the completion, the agent's and the partner's by
            turns, the agent's first and last; the partner's are no decisions and have reward 0. Empty: all is the agent's.
        more: of several rewards (`columns`), the second and the following ones; `rewards` is the first.
    """

    prompt: str
    completion: str
    rewards: tuple[float, ...]
    next: str = ""
    episode: int = -1
    place: str = field(default="", compare=False, repr=False)
    spans: tuple[int, ...] = ()
    more: tuple[tuple[float, ...], ...] = ()

    def of_reward(self, place: int) -> Trajectory:
        """With one of several rewards alone."""
        return replace(self, rewards=(self.rewards, *self.more)[place], more=()) if self.more else self

    def parts(self) -> Iterator[tuple[str, tuple[float, ...], bool]]:
        """Text, rewards and whether it is the agent's, of each part of the completion."""
        begin = 0
        for number, length in enumerate(self.spans or (len(self.completion),)):
            end = begin + length
            yield self.completion[begin:end], self.rewards[begin:end], number % 2 == 0
            begin = end


def content_sha256(trajectories: Iterable[Trajectory]) -> str:
    """Hex sha256 of all fields of all trajectories but `place`, in order."""
    digest = hashlib.sha256()
    for t in trajectories:
        fields = [t.prompt, t.completion, t.rewards, t.next, t.episode, *([t.spans] if t.spans else [])]
        fields += [["more", *t.more]] if t.more else []
        digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()


def trajectory_of(place: str, record: Any) -> Trajectory:
    """Validates one record. Raises UserError with the place and the field."""
    found = _trajectory(place, record)
    for name in ("prompt", "completion", "next"):
        try:
            getattr(found, name).encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{place}: {name} has {error.object[error.start]!r} at position {error.start + 1}, half of a pair that stands "
                "for one character; write both halves, or leave it out."
            ) from None
    return found


def _trajectory(place: str, record: Any) -> Trajectory:
    if not isinstance(record, Mapping):
        raise UserError(f'{place} is no object but {_shown(record)}; write {{"prompt": ..., "completion": ..., ...}}.')
    if record.get("turns") is not None:
        return _dialogue(place, record)
    prompt, completion = (_text(record, name, place) for name in ("prompt", "completion"))
    follows = record.get("next")
    if follows is not None and not isinstance(follows, str):
        raise UserError(f"{place}: next is {_shown(follows)}; it must be a text, empty where the episode ended.")
    rewards = _rewards(record, completion, place)
    return Trajectory(prompt, completion, rewards, follows or "", _episode(record, place), place)


def dialogue(turns: Iterable[tuple[str, bool, float]], episode: int, place: str) -> Trajectory:
    """Builds a trajectory from turns (text, whether it is the agent's, reward at its last character).

    Args:
        turns: at least one of the partner before the first of the agent; every text has a character or more.
        episode: its number.
        place: for messages.
    """
    prompt, completion, rewards, spans, kept = "", "", list[float](), list[int](), (0, 0)
    for text, agent, reward in turns:
        if not agent and not spans:
            prompt += text
            continue
        if len(spans) % 2 == agent:  # the speaker of the last part goes on
            spans[-1] += len(text)
        else:
            spans.append(len(text))
        completion += text
        rewards += [0.0] * (len(text) - 1) + [reward if agent else 0.0]
        kept = (len(spans), len(completion)) if agent else kept
    parts, end = kept
    return Trajectory(prompt, completion[:end], tuple(rewards[:end]), "", episode, place, tuple(spans[:parts]))


def _dialogue(place: str, record: Mapping[str, Any]) -> Trajectory:
    """Validates a record with `turns`."""
    beside = [name for name in _FIELDS if name not in ("turns", "episode") and record.get(name) is not None]
    if beside:
        raise UserError(f"{place} has both turns and {beside[0]}; a dialogue has turns (and may have episode) alone.")
    if not isinstance(record["turns"], list):
        raise UserError(f"{place}: turns is {_shown(record['turns'])}, not a list.")
    turns = [_turn(turn, f"{place}, turn {number}") for number, turn in enumerate(record["turns"], 1)]
    speakers = [agent for _, agent, _ in turns]
    if True not in speakers or speakers[0]:
        why = "the agent has no turn" if True not in speakers else "the agent's first choice follows no character"
        raise UserError(
            f"{place}: {why}; start with a turn of the partner (agent: false), followed by one of the agent."
        )
    if all(turn.get("reward") is None for turn in record["turns"]):
        raise UserError(f"{place}: no turn has a reward; give one to at least one turn of the agent.")
    return dialogue(turns, _episode(record, place), place)


def _turn(turn: Any, place: str) -> tuple[str, bool, float]:
    if not isinstance(turn, Mapping):
        raise UserError(
            f'{place} is no object but {_shown(turn)}; write {{"text": ..., "agent": true, "reward": ...}}.'
        )
    text, agent, reward = turn.get("text"), turn.get("agent"), turn.get("reward")
    if not isinstance(text, str) or not text:
        raise UserError(f"{place}: text is {_shown(text)}; it must be a text of at least one character.")
    if not isinstance(agent, bool):
        raise UserError(f"{place}: agent is {_shown(agent)}; it must be true (the agent wrote it) or false.")
    if reward is not None and not agent:
        raise UserError(f"{place} is the partner's and has a reward; only the agent's turns have rewards.")
    return text, agent, 0.0 if reward is None else _number(reward, "reward", place)


def _episode(record: Mapping[str, Any], place: str) -> int:
    episode = record.get("episode")
    if episode is not None and (isinstance(episode, bool) or not isinstance(episode, int) or episode < 0):
        raise UserError(f"{place}: episode is {_shown(episode)}; it must be an integer from 0, or be left out.")
    return -1 if episode is None else episode


def _text(record: Mapping[str, Any], name: str, place: str) -> str:
    text = record.get(name)
    if text is None:
        raise _missing(record, name, place)
    if not isinstance(text, str):
        raise UserError(f"{place}: {name} is {_shown(text)}, not a text; put it in quotes.")
    if not text:
        why = {"prompt": "the first choice follows at least one character", "completion": "nothing was chosen"}[name]
        raise UserError(f"{place}: {name} is empty ({why}). Give it some text, or leave the line out.")
    return text


def _rewards(record: Mapping[str, Any], completion: str, place: str) -> tuple[float, ...]:
    single, each = record.get("reward"), record.get("rewards")
    if single is None and each is None:
        raise _missing(record, "reward", place)
    if single is not None and each is not None:
        raise UserError(f"{place} has both reward and rewards; keep one: a number, or one number a character.")
    if each is None:
        return (0.0,) * (len(completion) - 1) + (_number(single, "reward", place),)
    if not isinstance(each, list):
        raise UserError(f"{place}: rewards is {_shown(each)}, not a list; a single number is called reward.")
    if len(each) != len(completion):
        raise UserError(
            f"{place}: rewards has {len(each)} numbers, but completion has {len(completion)} characters; give one for each."
        )
    return tuple(_number(value, f"rewards[{i}]", place) for i, value in enumerate(each))


def _number(value: Any, name: str, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{place}: {name} is {_shown(value)}, not a number.")
    if not abs(value) <= _GREATEST:  # also not-a-number
        raise UserError(
            f"{place}: {name} is {_shown(value)}; a reward must be finite (in 32 bits). Correct or drop the line."
        )
    return float(value)


def _missing(record: Mapping[str, Any], name: str, place: str) -> UserError:
    there = [str(key) for key in record if record[key] is not None]
    wanted = "reward (nor rewards)" if name == "reward" else name
    near = difflib.get_close_matches(name, [key for key in there if key not in _FIELDS], n=1)
    hint = f" Rename {near[0]} to {name}." if near else ""
    return UserError(f"{place} has no {wanted}; it has {', '.join(there) or 'nothing'}.{hint}")


def _shown(value: Any, limit: int = 60) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else f"{text[:limit]} ..."
