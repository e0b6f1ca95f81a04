"""The forms in which people have texts with rewards, recognised by their fields, each turned into the log's own records.

    form          fields                                      becomes
    completions   prompt, completion, reward (or rewards)     as it is
    turns         turns                                       as it is
    messages      messages, reward                            a dialogue: the assistant's turns are decisions, the last is paid
    preferences   chosen, rejected (prompt or not)            two records, paid `pair_rewards`
    labels        prompt, completion, label                   paid 1 or 0
    sharegpt      conversations, reward                       as messages
    alpaca        instruction, output, reward (input or not)  a prompt of instruction and input

The reward may also be called `score` or `rating`, and be a text: a number ("4"), a share ("4/5"), or a word that `data.ratings`
gives a number. Conversations are written by the model's chat template.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dqnlm.data.tokenizers.chat import ChatTemplate
from dqnlm.errors import UserError

Row = Mapping[str, Any]
REWARDS = ("reward", "score", "rating")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}  # of ShareGPT
ASSISTANT = "assistant"


class Form(NamedTuple):
    """One form.

    Attributes:
        name: for the run's summary.
        needs: fields that every record has; "reward" stands for any of `REWARDS`.
        convert: (record, where it stands, settings) -> records of the log; [] where it is left out, and counted.
    """

    name: str
    needs: tuple[str, ...]
    convert: Callable[[Row, str, FormSettings], list[dict[str, Any]]]


@dataclass
class FormSettings:
    """What the forms are read by, and what was found.

    Args:
        tokenizer: folder or name of the model whose chat template writes conversations; None: there is none.
        pair_rewards: of the chosen and the rejected answer.
        ratings: word -> number.

    Attributes:
        counts: rows by form.
        left_out: rows by the reason why they are left out.
    """

    tokenizer: str | None = None
    pair_rewards: tuple[float, float] = (1.0, 0.0)
    ratings: Mapping[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    _template: ChatTemplate | None = None

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template.

        Raises:
            UserError: there is no model, or it has none.
        """
        if self._template is None:
            if self.tokenizer is None or self.tokenizer in ("character", "byte", "bpe"):
                raise UserError(
                    "the data has conversations, which a pretrained model's chat template writes as a text, and "
                    f"data.tokenizer={self.tokenizer} has none: name the folder of a chat model (network=pretrained "
                    "network.name_or_path=FOLDER), or give prompt and completion"
                )
            self._template = ChatTemplate(self.tokenizer)
        return self._template

    def notes(self) -> list[str]:
        """What was recognised and left out, one sentence each; [] for the log's own form."""
        others = {name: count for name, count in self.counts.items() if name not in ("completions", "turns")}
        found = [f"{count:,} rows are read as {name}" for name, count in others.items()]
        return found + [f"{count:,} rows are left out: {why}" for why, count in self.left_out.items()]


def records_of(row: Any, place: str, settings: FormSettings) -> list[Any]:
    """The log's own records of one row, in the first form that fits; what fits none is handed on, to be named there.

    Raises:
        UserError: its fields begin a form and lack one, or a value cannot be read.
    """
    if not isinstance(row, Mapping):
        return [row]
    there = {name for name, value in row.items() if value is not None}
    form = next((form for form in FORMS if all(_has(there, name) for name in form.needs)), None)
    if form is None:
        _refuse_unfinished(there, place)
        return [row]
    found = form.convert(row, place, settings)
    settings.counts[form.name] += bool(found)
    return found


def _has(there: set[str], name: str) -> bool:
    return bool(there & set(REWARDS)) if name == "reward" else name in there


def _refuse_unfinished(there: set[str], place: str) -> None:
    """Raises UserError where some but not all fields of a form beside the first are there; names the nearest form."""
    own = {form: [n for n in form.needs if n in there and n not in ("prompt", "completion", "reward")] for form in FORMS[2:]}
    form = max(FORMS[2:], key=lambda form: len(own[form]) / len(form.needs))
    if not own[form]:
        return  # nothing of another form is there, and the log's own is checked where its records are
    lacking = [name for name in form.needs if not _has(there, name)]
    near = [n for lack in lacking for n in difflib.get_close_matches(lack, sorted(there - set(form.needs)), n=1)]
    hint = f" Rename {near[0]} to {lacking[0]}." if near else ""
    raise UserError(
        f"{place} has {', '.join(sorted(there))}, which is nearest to the form {form.name} ({', '.join(form.needs)}) and lacks "
        f"{' and '.join(lacking)}.{hint}"
    )


def reward_of(row: Row, place: str, settings: FormSettings) -> float:
    """The number that a record is paid.

    Raises:
        UserError: a text that is no number and no word of `data.ratings`.
    """
    name = next(name for name in REWARDS if row.get(name) is not None)
    value = row[name]
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return value  # type: ignore[no-any-return]  # what is no number is named where records are checked
    text = value.strip()
    if text in settings.ratings:
        return float(settings.ratings[text])
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        known = ", ".join(settings.ratings) or "none"
        raise UserError(
            f"{place}: {name} is {value!r}, which is no number (nor a share such as 4/5); give words a number: "
            f"data.ratings={{{text}: 1}} (words with one so far: {known})"
        ) from None


def _completions(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    paid = {} if row.get("rewards") is not None else {"reward": reward_of(row, place, settings)}
    return [dict(row) | paid]


def _turns(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    return [dict(row)]


def _labels(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    label = row["label"]
    if isinstance(label, str) and label.strip().lower() in ("true", "false"):
        label = label.strip().lower() == "true"
    if label not in (True, False, 0, 1):
        raise UserError(f"{place}: label is {label!r}; it must be true or false (numbers of another kind are called reward).")
    return [{"prompt": row["prompt"], "completion": row["completion"], "reward": float(label)}]


def _alpaca(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    parts = [text for text in (row["instruction"], row.get("input")) if text]
    for name in ("instruction", "input", "output"):
        if row.get(name) is not None and not isinstance(row[name], str):
            raise UserError(f"{place}: {name} is {row[name]!r}, not a text.")
    prompt = "\n\n".join(parts) + "\n\n"
    return [{"prompt": prompt, "completion": row["output"], "reward": reward_of(row, place, settings)}]


def _messages(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    return _conversation(_checked(row["messages"], place, "messages"), reward_of(row, place, settings), place, settings)


def _sharegpt(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(isinstance(t, Mapping) and t.get("from") in ROLES for t in turns):
        known = ", ".join(ROLES)
        raise UserError(f'{place}: conversations is a list of {{"from": ..., "value": ...}}, with from one of {known}.')
    talk = [{"role": ROLES[turn["from"]], "content": turn.get("value")} for turn in turns]
    return _conversation(_checked(talk, place, "conversations"), reward_of(row, place, settings), place, settings)


def _checked(messages: Any, place: str, name: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{place}: {name} is {messages!r:.60}; it must be a list of turns.")
    for number, turn in enumerate(messages, 1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str) or not isinstance(turn.get("role"), str):
            raise UserError(f'{place}: turn {number} of {name} is {turn!r:.60}; write {{"role": "user", "content": "..."}}.')
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages]


def _conversation(
    messages: list[dict[str, str]], reward: float, place: str, settings: FormSettings
) -> list[dict[str, Any]]:
    """A dialogue whose assistant's turns are the agent's; the last of them is paid, and what follows it is dropped."""
    said = [i for i, turn in enumerate(messages) if turn["role"] == ASSISTANT and turn["content"]]
    if not said:
        settings.left_out["no turn of the assistant has a text"] += 1
        return []
    template, turns, written = settings.template, list[dict[str, Any]](), ""
    end = template.special.get("eos_token") or ""
    for i in said:
        before = template.render(messages[:i], place, add_generation_prompt=True) if i else ""
        if not before.startswith(written) or before == written:
            raise UserError(
                f"{place}: the chat template of {template.where} writes turn {i + 1} of the assistant otherwise once more turns "
                "follow (or nothing before it), so its text cannot be told apart: give prompt and completion"
            )
        content = messages[i]["content"]
        turns += [{"text": before[len(written) :], "agent": False}]
        turns += [{"text": content, "agent": True, "reward": reward if i == said[-1] else 0.0}]
        written = before + content + end  # the end token is added where records become tokens
    return [{"turns": turns}]


def _preferences(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    chosen, rejected = row["chosen"], row["rejected"]
    if chosen == rejected:
        settings.left_out["the chosen and the rejected answer are the same"] += 1
        return []
    kinds = {type(value) for value in (chosen, rejected)}
    if kinds not in ({str}, {list}):
        here = f"{chosen!r:.40}, {rejected!r:.40}"
        raise UserError(f"{place}: chosen and rejected are both texts, or both lists of messages; here: {here}")
    prompt = row.get("prompt")
    if isinstance(chosen, list):
        lead = _checked(prompt, place, "prompt") if isinstance(prompt, list) else []
        talks = [lead + _checked(answer, place, name) for answer, name in ((chosen, "chosen"), (rejected, "rejected"))]
        if isinstance(prompt, str) and not any(turn["role"] == "user" for turn in talks[0]):
            talks = [[{"role": "user", "content": prompt}, *talk] for talk in talks]
        return [
            record for talk, paid in zip(talks, settings.pair_rewards, strict=True)
            for record in _conversation(talk, paid, place, settings)
        ]  # fmt: skip
    if prompt is None:
        prompt = _common(chosen, rejected)
        if not prompt:
            raise UserError(f"{place}: there is no prompt, and chosen and rejected begin differently; give a field prompt.")
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if not (chosen and rejected):
        settings.left_out["an answer is empty"] += 1
        return []
    answers = zip((chosen, rejected), settings.pair_rewards, strict=True)
    return [{"prompt": prompt, "completion": answer, "reward": paid} for answer, paid in answers]


def _common(one: str, other: str) -> str:
    """What two texts begin with alike, up to its last white space, so that no word is cut."""
    alike = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    common = one[:alike]
    return common[: max(common.rfind(" "), common.rfind("\n")) + 1]


FORMS = (
    Form("completions", ("prompt", "completion", "reward"), _completions),
    Form("completions", ("prompt", "completion", "rewards"), _completions),
    Form("turns", ("turns",), _turns),
    Form("messages", ("messages", "reward"), _messages),
    Form("preferences", ("chosen", "rejected"), _preferences),
    Form("labels", ("prompt", "completion", "label"), _labels),
    Form("sharegpt", ("conversations", "reward"), _sharegpt),
    Form("alpaca", ("instruction", "output", "reward"), _alpaca),
)
