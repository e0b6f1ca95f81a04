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
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from dqnlm.data.tokenizers.chat import ChatTemplate
from dqnlm.data.trajectories.reward_values import ratings_by_text, require_alike, value_of, without_number
from dqnlm.errors import UserError

Row = Mapping[str, Any]
REWARDS = ("reward", "score", "rating")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}  # of ShareGPT
ASSISTANT = "assistant"
LABELS = {"true": True, "1": True, "false": False, "0": False}  # of texts; CSV knows no booleans
OTHER_NAMES = {  # of our fields, in data sets that people have: named in messages, as a guess may be wrong
    "prompt": ("question", "query", "input", "instruction", "context", "source"),
    "completion": ("response", "answer", "output", "reply", "generation", "continuation", "target", "text"),
    "reward": ("return", "value", "grade", "quality", "preference"),
    "messages": ("conversation", "dialogue", "dialog", "chat"),
    "chosen": ("preferred", "accepted", "winner"),
    "rejected": ("dispreferred", "refused", "loser"),
    "label": ("is_good", "good", "correct"),
}
AssistantTurns = Literal["every", "last"]


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


class RewardColumns(NamedTuple):
    """Columns that hold the rewards of a row.

    Attributes:
        names: of the columns.
        weights: of each in the one reward that is learned; None: each is learned by a Q of its own.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...] | None

    @property
    def setting(self) -> str:
        return "data.rewards" if self.weights is None else "data.reward_weights"


@dataclass
class FormSettings:
    """What the forms are read by, and what was found.

    Args:
        tokenizer: folder or name of the model whose chat template writes conversations; None: there is none.
        pair_rewards: of the chosen and the rejected answer.
        ratings: word -> number.
        assistant_turns: of a conversation that are decisions; of `last` the earlier ones belong to the prompt.
        columns: where several rewards stand (`columns`); None: the row's own reward is the one.

    Attributes:
        counts: rows by form.
        left_out: rows by the reason why they are left out.
        words: word without a number -> where it stands first, "FILE, line 3: reward".
        beside: rows by what is said about their fields that could be the reward too.
        kinds: how each reward column writes its rewards (`reward_values.require_alike`), of all files.
    """

    tokenizer: str | None = None
    pair_rewards: tuple[float, float] = (1.0, 0.0)
    ratings: Mapping[str, float] = field(default_factory=dict)
    assistant_turns: AssistantTurns = "every"
    columns: RewardColumns | None = None
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    words: dict[str, str] = field(default_factory=dict)
    beside: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, dict[str, str]] = field(default_factory=dict)
    _template: ChatTemplate | None = None

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template.

        Raises:
            UserError: there is no model, or it has none.
        """
        if self._template is None:
            if self.tokenizer is None:
                raise UserError(
                    "the data has conversations, which a pretrained model's chat template writes as a text: read them with "
                    "data=logged data.tokenizer=FOLDER of a chat model, or give prompt and completion"
                )
            if self.tokenizer in ("character", "byte", "bpe"):
                raise UserError(
                    "the data has conversations, which a pretrained model's chat template writes as a text, and "
                    f"data.tokenizer={self.tokenizer} has none: name the folder of a chat model (network=pretrained "
                    "network.name_or_path=FOLDER), or give prompt and completion"
                )
            self._template = ChatTemplate(self.tokenizer)
        return self._template

    def notes(self) -> list[str]:
        """What was recognised and left out, one sentence each."""
        found = [f"{_rows(count)} read as {name}" for name, count in self.counts.items() if count]
        found += [f"{count:,} {'row has' if count == 1 else 'rows have'} {what}" for what, count in self.beside.items()]
        return found + [f"{_rows(count)} left out: {why}" for why, count in self.left_out.items()]

    def anew(self) -> FormSettings:
        """The same settings, with nothing found so far."""
        return replace(self, counts=Counter(), left_out=Counter(), words={}, beside=Counter())

    def refuse_words(self) -> None:
        """Raises UserError where rewards are words that have no number; names all of them."""
        if self.words:
            raise without_number(self.words, self.ratings)


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count:,} rows are"


def form_settings(
    tokenizer: str | None, pair_rewards: list[float], ratings: Mapping[Any, float] | None, assistant_turns: AssistantTurns,
    columns: RewardColumns | None = None,
) -> FormSettings:
    """Of the settings of `data`. Raises UserError where `pair_rewards` are not two numbers."""
    if len(pair_rewards) != 2:
        raise UserError(f"data.pair_rewards are two numbers, of the chosen and the rejected answer, not {pair_rewards}")
    pair = (pair_rewards[0], pair_rewards[1])
    return FormSettings(tokenizer, pair, ratings_by_text(ratings), assistant_turns, columns)


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
    if (beside := _beside(form, there)) is not None:
        settings.beside[beside] += 1
    return found


def _beside(form: Form, there: set[str]) -> str | None:
    """What is said about fields that could be the reward too; None where there are none."""
    could = [name for name in (*REWARDS, "rewards", "label") if name in there]
    used = [name for name in form.needs if name not in ("prompt", "completion")]
    if "reward" in used:
        used = ["rewards"] if "rewards" in there and form.name == "completions" else could[:1]
    others = [name for name in could if name not in used]
    named = [*used, *others]
    said = f"{' and '.join(used)} {'is' if len(used) == 1 else 'are'} learned from"
    return f"{', '.join(named[:-1])} and {named[-1]}: {said}" if others else None


def _has(there: set[str], name: str) -> bool:
    return bool(there & set(REWARDS)) if name == "reward" else name in there


def _refuse_unfinished(there: set[str], place: str) -> None:
    """Raises UserError where some but not all fields of a form are there, or by other names; names the nearest form."""
    own = {form: [n for n in form.needs if n in there and n not in ("prompt", "completion", "reward")] for form in FORMS[2:]}
    form = max(FORMS[2:], key=lambda form: len(own[form]) / len(form.needs))
    form = form if own[form] else FORMS[0]
    lacking = [name for name in form.needs if not _has(there, name)]
    renamed = [(name, lack) for lack in lacking if (name := _other_name(lack, there - set(form.needs))) is not None]
    if form is FORMS[0] and not renamed:
        return  # nothing of any form is there: the log's own is checked where its records are
    hint = f" Rename {' and '.join(f'{name} to {lack}' for name, lack in renamed)}." if renamed else ""
    raise UserError(
        f"{place} has {', '.join(sorted(there))}, which is nearest to the form {form.name} ({', '.join(form.needs)}) and lacks "
        f"{' and '.join(lacking)}.{hint}"
    )


def _other_name(name: str, there: set[str]) -> str | None:
    """The field that may be this one under another name, or misspelt."""
    by_case = {found.lower(): found for found in sorted(there)}
    known = next((by_case[other] for other in (name, *OTHER_NAMES.get(name, ())) if other in by_case), None)
    return known or next(iter(difflib.get_close_matches(name, sorted(there), n=1)), None)


def reward_of(row: Row, place: str, settings: FormSettings) -> float:
    """The number that a record is paid; 0 for a word without one, which `FormSettings.refuse_words` names in the end.

    Raises:
        UserError: it is written in another way than those before it.
    """
    name = next(name for name in REWARDS if row.get(name) is not None)
    paid = value_of(row[name], settings.ratings)
    if paid is None:
        settings.words.setdefault(row[name].strip(), f"{place}: {name}")
        return 0.0
    if settings.columns is None:  # else `columns` knows their names
        require_alike(row[name], paid.kind, name, place, settings.kinds)
    return paid.number  # type: ignore[no-any-return]  # what is no number is named where records are checked


def _completions(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    if row.get("rewards") is not None:
        return [dict(row)]
    return _answered(row, reward_of(row, place, settings), place, settings)


def _answered(row: Row, reward: float, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    """A record with prompt and completion, as texts or (one of them or both) as messages."""
    if not isinstance(row["prompt"], list) and not isinstance(row["completion"], list):
        return [dict(row) | {"reward": reward}]
    lead, answer = _turns_of(row, "prompt", "user", place), _turns_of(row, "completion", ASSISTANT, place)
    return _conversation(lead + answer, reward, place, settings, given=len(lead))


def _turns_of(row: Row, name: str, role: str, place: str) -> list[dict[str, str]]:
    value = row[name]
    return _checked([{"role": role, "content": value}] if isinstance(value, str) else value, place, name)


def _turns(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    return [dict(row)]


def _labels(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    label = row["label"]
    if isinstance(label, str):
        label = LABELS.get(label.strip().lower(), label)
    if label not in (True, False, 0, 1):
        raise UserError(f"{place}: label is {label!r}; it must be true or false (numbers of another kind are called reward).")
    kept = {"prompt": row["prompt"], "completion": row["completion"]}
    return _answered(kept, float(label), place, settings)


def _alpaca(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    for name in ("instruction", "input", "output"):
        if row.get(name) is not None and not isinstance(row[name], str):
            raise UserError(f"{place}: {name} is {row[name]!r}, not a text.")
    parts = [text for text in (row["instruction"], row.get("input")) if text]
    if not parts or not row["output"]:
        settings.left_out["an answer is empty" if parts else "the instruction is empty"] += 1
        return []
    prompt = "\n\n".join(parts) + "\n\n"
    return [{"prompt": prompt, "completion": row["output"], "reward": reward_of(row, place, settings)}]


def _messages(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    return _conversation(_checked(row["messages"], place, "messages"), reward_of(row, place, settings), place, settings)


def _sharegpt(row: Row, place: str, settings: FormSettings) -> list[dict[str, Any]]:
    turns = row["conversations"]
    known = 'a list of {"from": ..., "value": ...}, with from one of ' + ", ".join(ROLES)
    if not isinstance(turns, list):
        raise UserError(f"{place}: conversations is {turns!r:.60}; it must be {known}.")
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("from"), str) or turn["from"] not in ROLES:
            raise UserError(f"{place}: turn {number} of conversations is {turn!r:.60}; conversations is {known}.")
    talk = [{"role": ROLES[turn["from"]], "content": turn.get("value")} for turn in turns]
    return _conversation(_checked(talk, place, "conversations"), reward_of(row, place, settings), place, settings)


def _checked(messages: Any, place: str, name: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{place}: {name} is {messages!r:.60}; it must be a list of turns (in CSV: as JSON).")
    for number, turn in enumerate(messages, 1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str) or not isinstance(turn.get("role"), str):
            raise UserError(f'{place}: turn {number} of {name} is {turn!r:.60}; write {{"role": "user", "content": "..."}}.')
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages]


def _conversation(
    messages: list[dict[str, str]], reward: float, place: str, settings: FormSettings, given: int = 0
) -> list[dict[str, Any]]:
    """A dialogue whose assistant's turns are the agent's; the last of them is paid, and what follows it is dropped.

    Args:
        messages: the turns.
        reward: of the last of the assistant's.
        place: for messages of errors.
        settings: which turns are decisions.
        given: so many turns at the beginning belong to the prompt, whoever wrote them.
    """
    said = [i for i, turn in enumerate(messages) if i >= given and turn["role"] == ASSISTANT and turn["content"]]
    said = said[-1:] if settings.assistant_turns == "last" else said
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
                "follow (or nothing before it), so its text cannot be told apart: set data.assistant_turns=last, or give prompt "
                "and completion"
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
        shared = next((i for i, (one, other) in enumerate(zip(*talks, strict=False)) if one != other), min(map(len, talks)))
        pair = zip(talks, settings.pair_rewards, strict=True)
        found = [_conversation(talk, paid, place, settings, given=shared) for talk, paid in pair]
        return [record for records in found for record in records] if all(found) else []
    if isinstance(prompt, list):
        raise UserError(f"{place}: prompt is a list of messages, so chosen and rejected are lists of messages too.")
    if not prompt:
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
