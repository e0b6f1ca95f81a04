"""Dialogues: steps of the environment against a naive game, rows of the log against rows of the environment, resuming."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.data.tokenizers.base import CharacterTokenizer
from dqnlm.data.trajectories.dataset import Trajectories, trajectories, wordle_log
from dqnlm.data.trajectories.records import Trajectory
from dqnlm.envs.dialogue import Dialogue
from dqnlm.errors import UserError
from dqnlm.partners.base import Answer, Partner
from dqnlm.partners.wordle import Wordle
from dqnlm.problems import wordle, wordle_words
from dqnlm.runs.directory import RunDirectory
from dqnlm.types import DECISION, TERMINATED, Bounds, TimeStep
from tests.helpers import runs as tools
from tests.helpers.environments import episodes

CPU = torch.device("cpu")
WORDS = wordle_words.WORDS
Row = dict[str, list[Any]]


def make(seed: int = 0, evaluating: bool = False, num_envs: int = 5, **options: Any) -> Dialogue:
    settings: dict[str, Any] = {"num_envs": num_envs, "utterance_length": 6, "max_turns": 6, "partner": {}} | options
    return Dialogue(CPU, lambda node: Wordle(num_envs, seed, evaluating, words="bundled", legal_words=False), **settings)


def text(ids: list[int], alphabet: str = wordle.ALPHABET) -> str:
    return "".join(alphabet[i] for i in ids)


def same(a: TimeStep, b: TimeStep) -> bool:
    return all((x is None and y is None) or torch.equal(x, y) for x, y in zip(a, b, strict=True))


def say(env: Dialogue, scripts: list[str], steps: int) -> list[list[Row]]:
    """Plays; place e writes the characters of its script in order, over and over, wherever it decides.

    Elsewhere a random character is chosen, which must change nothing. Who decides is read off the flags alone.
    """
    source, at = random.Random(0), [0] * env.num_envs
    first_E, actions, found = env.reset(), [], list[TimeStep]()
    for _ in range(steps):
        wanted = [env.spec.alphabet.index(script[at[e] % len(script)]) for e, script in enumerate(scripts)]
        state = io.BytesIO()
        torch.save(env.state_dict(), state)
        step = env.step(torch.tensor(wanted))
        decided = [bool(flag & DECISION) for flag in step.flag_E.tolist()]
        state.seek(0)
        env.load_state_dict(torch.load(state, weights_only=True))
        noise = [w if d else source.randrange(env.spec.num_actions) for w, d in zip(wanted, decided, strict=True)]
        again = env.step(torch.tensor(noise))
        assert same(step, again)
        actions.append(torch.tensor(noise))
        found.append(again)
        at = [place + d for place, d in zip(at, decided, strict=True)]
    return episodes(first_E, torch.stack(actions), found)


def game(secret: str, characters: list[str]) -> tuple[str, list[float], list[int]]:
    """The naive oracle: the page, rewards and flags of one game in which these characters are written one after another."""
    page, rewards, flags = "\n", [], []
    for turn in range(1, 7):
        utterance = ""
        while len(utterance) < 6 and not utterance.endswith("\n"):
            utterance += characters.pop(0)
        guess, right = utterance[:-1], utterance.endswith("\n") and utterance[:-1] in WORDS
        page += utterance
        over = guess == secret or turn == 6
        rewards += [0.0] * (len(utterance) - 1) + [0.0 if right and guess == secret else -1.0]
        flags += [DECISION] * (len(utterance) - 1) + [DECISION | (TERMINATED if over else 0)]
        if over:
            break
        bracketed = dict(zip("abcdefghijklmnopqrstuvwxyz", "⒜⒝⒞⒟⒠⒡⒢⒣⒤⒥⒦⒧⒨⒩⒪⒫⒬⒭⒮⒯⒰⒱⒲⒳⒴⒵", strict=True))
        circled = dict(zip("abcdefghijklmnopqrstuvwxyz", "ⓐⓑⓒⓓⓔⓕⓖⓗⓘⓙⓚⓛⓜⓝⓞⓟⓠⓡⓢⓣⓤⓥⓦⓧⓨⓩ", strict=True))
        answer = "\n"
        if right:
            pairs = zip(guess, secret, strict=True)
            answer = (
                "".join(a.upper() if a == b else circled[a] if a in secret else bracketed[a] for a, b in pairs) + "\n"
            )
        page, rewards, flags = page + answer, rewards + [0.0] * len(answer), flags + [0] * len(answer)
    return page, rewards, flags


def test_every_game_equals_the_naive_game() -> None:
    """Bug: a flag or reward one step off, an answer of another game, a try too many, a secret that changes in a game."""
    source = random.Random(1)
    scripts = ["".join(source.choice([*WORDS, "zzzzz", "ab", "abcdef"]) + "\n" for _ in range(50)) for _ in range(12)]
    env, count = make(seed=3, num_envs=12), 0
    twin = Wordle(12, 3, False, words="bundled", legal_words=False)  # the same secrets, in the order in which games begin
    twin.begin(list(range(12)))
    for e, rows in enumerate(say(env, scripts, 150)):
        characters = list(scripts[e])
        for number, row in enumerate(rows[:-1]):
            secret = next(s for s in WORDS if number or s == WORDS[twin._secret[e]])
            if number:  # a later game's secret is not known here: any that explains the page
                pages = {s: game(s, list(characters)) for s in WORDS}
                secret = next(s for s in WORDS if pages[s][0] == text(row["observation"]))
            page, rewards, flags = game(secret, characters)
            assert text(row["observation"]) == page
            assert row["reward"] == rewards and row["flag"] == flags
            count += 1
    assert count > 20


def test_a_row_by_hand() -> None:
    """Bug: the opening or an answer is a decision, or the reward stands at the answer.

    Evaluating, place 0 has the first word of the list, `above`: `actor` has its a in place and an o elsewhere; `above` solves it.
    """
    (rows,) = say(make(evaluating=True, num_envs=1), ["actor\nabove\n"], 18)
    assert text(rows[0]["observation"]) == "\nactor\nA⒞⒯ⓞ⒭\nabove\n"
    assert rows[0]["flag"] == [1] * 6 + [0] * 6 + [1] * 5 + [DECISION | TERMINATED]
    assert rows[0]["reward"] == [0.0] * 5 + [-1.0] + [0.0] * 12
    assert text(rows[1]["observation"]) == "\n"
    spec = make().spec
    assert spec.row_transitions == 6 * 6 + 5 * 6 and spec.first_decision == 0


def test_evaluation_plays_every_word_once_and_again() -> None:
    """Bug: secrets of an evaluation that are drawn, so that two evaluations differ and a word may never come."""
    env = make(evaluating=True, num_envs=len(WORDS) + 2)
    for e, rows in enumerate(
        say(env, [f"{WORDS[(e + 1) % len(WORDS)]}\n{WORDS[e % len(WORDS)]}\n" for e in range(env.num_envs)], 40)
    ):
        assert [sum(row["reward"]) for row in rows[:2]] == [-1.0, -1.0], e


def test_secrets_are_drawn_and_follow_the_seed() -> None:
    """Bug: one secret for all, a seed that is not used, secrets that are not drawn anew."""
    first, second, other = (Wordle(400, seed, False, words="bundled", legal_words=False) for seed in (0, 0, 1))
    for partner in (first, second, other):
        partner.begin(list(range(400)))
    assert first._secret == second._secret != other._secret and len(set(first._secret)) > 150
    before = list(first._secret)
    first.begin([3, 5])
    assert [i for i, (a, b) in enumerate(zip(before, first._secret, strict=True)) if a != b] == [3, 5]


@pytest.mark.parametrize("before", [0, 4, 6, 9, 40])
def test_resuming_anywhere(before: int) -> None:
    """Bug: a part of the state that is not saved: the utterance so far, an answer half read, turns, secrets, the draws."""
    source = torch.Generator().manual_seed(0)
    letters = torch.tensor([wordle.ALPHABET.index(c) for c in "\nabcdefgh"])
    action_NE = letters[torch.randint(len(letters), (before + 120, 5), generator=source)]
    env, other = make(), make(seed=9)
    env.reset(), other.reset()
    for action_E in action_NE[:before]:
        env.step(action_E)
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    expected = [env.step(action_E) for action_E in action_NE[before:]]
    for action_E in action_NE[:7]:
        other.step(action_E)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for a, action_E in zip(expected, action_NE[before:], strict=True):
        assert same(a, other.step(action_E))
    assert torch.equal(env.reset(), other.reset()) and env.state_dict()["partner"]["secret"] == other.partner._secret  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="5 dialogues"):
        make(num_envs=3).load_state_dict(env.state_dict())


def test_another_list_is_not_resumed(tmp_path: Path) -> None:
    """Bug: secrets by number in a list that has changed (DQNLM_DATA_DIR set or unset between two sittings)."""
    (tmp_path / "list.txt").write_text("crane\nbread\n")
    state = make(num_envs=1).partner.state_dict()
    with pytest.raises(UserError, match="another list of 240 words"):
        Wordle(1, 0, False, words=str(tmp_path / "list.txt"), legal_words=False).load_state_dict(state)


def test_bounds() -> None:
    """Bug: bounds that real returns leave. Six turns of -1: -6 at gamma 1; 1 + 1/2 + ... + 1/32 = 63/32 at gamma 1/2."""
    assert tuple(make().return_bounds(1.0)) == (-6.0, 0.0)
    assert tuple(make().return_bounds(0.5)) == (pytest.approx(-63 / 32), 0.0)
    assert tuple(make().return_bounds(0.0)) == tuple(make().reward_bounds) == (-1.0, 0.0)
    for rows in say(make(), ["\n"] * 5, 60):  # the fastest way to lose
        for row in rows[:-1]:
            value = 0.0
            for reward, flag in reversed(list(zip(row["reward"], row["flag"], strict=True))):
                value = reward + (0.5 if flag & DECISION else 1.0) * value
            assert -63 / 32 - 1e-9 <= value <= 0


def test_references() -> None:
    """Bug: the table compares with another list. Bundled: -1.6708 by searching, blind -sum (239/240)^k for k = 1..6."""
    known = make(num_envs=1).references()
    assert known["knows the list"] == pytest.approx(-1.6708, abs=1e-4)
    assert known["random words"] == pytest.approx(-sum((239 / 240) ** k for k in range(1, 7)))
    assert make().notes() == ["Wordle is played with the 240 words that come with dqnlm."]


# The log


def test_logged_rows_equal_the_rows_of_the_environment() -> None:
    """Bug: the log's flags, rewards or texts differ from what the environment gives for the same characters."""
    log = wordle_log(seed=0, games=60, words="bundled", keep_best=None, reward_scaling="none")
    rows = log.rows(CharacterTokenizer(wordle.ALPHABET), 66, CPU)
    for b, item in enumerate(log.items):
        solved = item.completion.endswith("\n") and sum(item.rewards) > -6
        if not solved:
            continue  # the secret is not in the log of a lost game
        secret = item.completion[-6:-1]
        env = make(evaluating=True, num_envs=WORDS.index(secret) + 1)
        mine = "".join(part for part, _, agent in item.parts() if agent)
        played = say(env, [mine] * env.num_envs, int(rows.length_B[b]))[WORDS.index(secret)][0]
        n = int(rows.length_B[b])
        assert played["observation"] == rows.observation_BS[b, : n + 1].tolist()
        assert played["flag"] == rows.flag_BT[b, :n].tolist()
        assert played["reward"] == rows.reward_BT[b, :n].tolist()
        break
    assert (log.longest(), log.first_decision()) == (66, 0) and set(log.alphabet()) <= set(wordle.ALPHABET)
    ends = rows.flag_BT.gather(1, rows.length_B[:, None] - 1)
    assert bool((ends == DECISION | TERMINATED).all()), "every game ends with the agent's last character"


def test_flags_of_the_log() -> None:
    """Bug: an answer counted as a decision, or a reward on it; of a turn each has six steps, and lost games have 36 + 30."""
    log = wordle_log(seed=0, games=300, words="bundled", keep_best=None, reward_scaling="none")
    rows = log.rows(CharacterTokenizer(wordle.ALPHABET), 66, CPU)
    decided_BT = (rows.flag_BT & DECISION) != 0
    assert bool((rows.reward_BT[~decided_BT] == 0).all())
    marks = torch.tensor([i for i, c in enumerate(wordle.ALPHABET) if c not in wordle.LETTERS + "\n"])
    assert bool((torch.isin(rows.action_BT.long(), marks) & decided_BT).sum() == 0)
    longest = rows.length_B == 66
    assert bool((decided_BT[longest].sum(1) == 36).all()) and int(longest.sum()) > 50
    with pytest.raises(UserError, match=r"data\.games is 0"):
        wordle_log(seed=0, games=0, words="bundled", keep_best=None, reward_scaling="none")


def read(folder: Path, *records: Any) -> Trajectories:
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    given: dict[str, Any] = {"name": None, "config": None, "split": "train", "revision": None}
    given |= {"pair_rewards": [1.0, 0.0], "ratings": None, "limit": None}
    return trajectories(path=str(folder / "log.jsonl"), **given, keep_best=None, reward_scaling="none")


def turn(words: str, agent: bool, reward: float | None = None) -> dict[str, Any]:
    return {"text": words, "agent": agent} | ({} if reward is None else {"reward": reward})


def test_dialogues_in_a_file(tmp_path: Path) -> None:
    """Bug: turns in another order, a reward at the wrong character, a last answer that becomes a cut row.

    `ab` opens; the agent says `cd` for 2 (two turns of its own are one), hears `ef`, says `g` for nothing; `h` is not kept.
    """
    said = [
        turn("a", False),
        turn("b", False),
        turn("c", True, -1),
        turn("d", True, 2),
        turn("ef", False),
        turn("g", True),
    ]
    (item,) = read(tmp_path, {"turns": [*said, turn("h", False)], "episode": 4}).items
    assert item == Trajectory("ab", "cdefg", (-1.0, 2.0, 0.0, 0.0, 0.0), "", 4, spans=(2, 2, 1))
    rows = read(tmp_path, {"turns": said}).rows(CharacterTokenizer("abcdefg"), 7, CPU)
    assert rows.flag_BT.tolist() == [[0, 1, 1, 0, 0, 1 | TERMINATED, 0]] and rows.length_B.tolist() == [6]
    assert rows.reward_BT.tolist() == [[0, -1, 2, 0, 0, 0, 0]]
    other = read(tmp_path, {"prompt": "ab", "completion": "cdefg", "rewards": [-1, 2, 0, 0, 0]})
    assert other.fingerprint() != read(tmp_path, {"turns": said}).fingerprint(), "who spoke is part of the data"


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ("hello", r"line 1: turns is \"hello\", not a list"),
        ([turn("a", False)], "line 1: the agent has no turn"),
        ([turn("a", True, 1)], "line 1: the agent's first choice follows no character"),
        ([turn("a", False), turn("b", True)], "line 1: no turn has a reward"),
        ([turn("a", False, 1), turn("b", True, 1)], "line 1, turn 1 is the partner's and has a reward"),
        ([turn("a", False), turn("", True, 1)], "line 1, turn 2: text is"),
        ([turn("a", False), {"text": "b", "agent": 1, "reward": 1}], "line 1, turn 2: agent is 1; it must be true"),
        ([turn("a", False), turn("b", True, float("inf"))], "line 1, turn 2: reward is Infinity"),
        (["a"], "line 1, turn 1 is no object"),
    ],
)
def test_wrong_dialogues_name_line_and_turn(tmp_path: Path, turns: Any, message: str) -> None:
    """Bug: a traceback, or a turn that is dropped."""
    with pytest.raises(UserError, match=message):
        read(tmp_path, {"turns": turns})


def test_turns_stand_alone(tmp_path: Path) -> None:
    """Bug: a completion beside turns is silently not read."""
    with pytest.raises(UserError, match="both turns and completion"):
        read(tmp_path, {"turns": [turn("a", False), turn("b", True, 1)], "completion": "x"})


# Partners


class Echo(Partner):
    """Repeats what was said; pays what it is told to."""

    alphabet, longest_opening, longest_answer, reward_bounds = "\nab", 2, 3, Bounds(-1.0, 2.0)

    def __init__(self, opening: str = "ab", said: str | None = None, reward: float = 2.0) -> None:
        self.opening, self.said, self.reward = opening, said, reward

    def begin(self, places: list[int]) -> list[str]:
        return [self.opening] * len(places)

    def answer(self, places: list[int], utterances: list[str]) -> list[Answer]:
        return [Answer(u if self.said is None else self.said, self.reward, False) for u in utterances]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state == {}


def talk(partner: Partner, **options: Any) -> Dialogue:
    settings: dict[str, Any] = {"num_envs": 1, "utterance_length": 3, "max_turns": 2, "partner": {}} | options
    return Dialogue(CPU, lambda node: partner, **settings)


def test_another_partner() -> None:
    """Bug: lengths of Wordle taken for granted: an opening of two characters, an utterance without a line break."""
    env = talk(Echo())
    (rows,) = say(env, ["aba\n"], 10)
    assert text(rows[0]["observation"], "\nab") == "ababa" + "aba" + "\n"
    assert rows[0]["flag"] == [0, 1, 1, 1, 0, 0, 0, DECISION | TERMINATED] and rows[0]["reward"] == [
        0,
        0,
        0,
        2,
        0,
        0,
        0,
        2,
    ]
    assert env.spec.row_transitions == 2 - 1 + 2 * 3 + 3 and tuple(env.return_bounds(1.0)) == (-2.0, 4.0)
    (rows,) = say(talk(Echo(said="")), ["a\n"], 10)  # nothing is said: the next utterance follows at once
    assert text(rows[0]["observation"], "\nab") == "ab" + "a\na\n" and rows[0]["flag"] == [0, 1, 1, 1, 1 | TERMINATED]


@pytest.mark.parametrize(
    ("partner", "message"),
    [
        (Echo(opening=""), "Echo began with an empty text"),
        (Echo(opening="aab"), "'aab', which is longer than 2"),
        (Echo(said="abc"), "'abc', which has 'c', which its alphabet has not"),
        (Echo(said="aaaa"), "longer than 3"),
        (Echo(reward=3.0), "the reward 3.0, outside its reward_bounds -1 to 2"),
        (Echo(reward=float("nan")), "the reward nan"),
    ],
)
def test_a_partner_that_breaks_its_word(partner: Partner, message: str) -> None:
    """Bug: rows that do not fit, ids outside the alphabet, rewards outside the bounds that a head is scaled by."""
    with pytest.raises(UserError, match=message):
        say(talk(partner), ["a\n"], 3)


def test_what_is_refused() -> None:
    """Bug: numbers and alphabets with which nothing can be played."""
    for key in ("num_envs", "utterance_length", "max_turns"):
        with pytest.raises(UserError, match=rf"env\.{key} is 0"):
            talk(Echo(), **{key: 0})
    for name, value in {"alphabet": "ab", "longest_opening": 0, "longest_answer": -1}.items():
        partner = Echo()
        setattr(partner, name, value)
        with pytest.raises(UserError, match=r"env\.partner"):
            talk(partner)


TINY = [
    "network=gru", "network.width=8", "network.layers=1", "network.context=66", "device=cpu", "threads=1", "logger=none",
    "progress=false", "evaluation.episodes=4", "evaluation.samples=1",
]  # fmt: skip


def tiny(*overrides: str) -> dict[str, Any]:
    typed = ["env=dialogue", "env.partner.words=bundled", "head.loss=huber", "env.num_envs=4", *TINY, *overrides]
    composed, _ = composition.compose(typed)
    return validation.validate(composed, {}, typed)


def test_online_and_offline_runs(tmp_path: Path) -> None:
    """Bug: rows that the buffer or a loss cannot take; a note on the list that is lost; logged rows that are not added."""
    online = tiny("data=none", "trainer.rollouts=4", "trainer.batch_size=4")
    trainer = launch.build(online, RunDirectory(tmp_path))
    for _ in range(3):
        trainer.train_round(trainer.phase)
    assert "Wordle is played with the 240 words that come with dqnlm." in trainer.components.notes
    offline = ["data=wordle", "data.games=50", "data.words=bundled", "trainer.rollouts=0", "trainer.offline_rounds=2"]
    trainer = launch.build(tiny(*offline, "trainer.batch_size=4", "algorithm=cql"), RunDirectory(tmp_path))
    trainer.train_round(trainer.phase)
    assert trainer.components.logged_rows == 50


def test_samples_show_the_page(tmp_path: Path) -> None:
    """Bug: where the partner speaks, a sample shows what the agent would have written (its actions are ignored there)."""
    trainer = launch.build(tiny("data=none", "trainer.rollouts=4", "trainer.batch_size=4"), RunDirectory(tmp_path))
    ((prompt, written),) = trainer.components.evaluator.evaluate(trainer.components.policy).samples
    rest, turns = written, 0
    while rest:
        end = min(6, rest.index("\n") + 1 if "\n" in rest else 6)
        utterance, rest, turns = rest[:end], rest[end:], turns + 1
        answer = wordle.judge(WORDS[0], utterance, WORDS).answer if turns < 6 else ""
        assert rest.startswith(answer)
        rest = rest[len(answer) :]
    assert prompt == "\n" and turns == 6


def test_log_and_partner_must_have_the_same_words(tmp_path: Path) -> None:
    """Bug: a log of other words than are played, so that what was learned means nothing."""
    words = tmp_path / "list.txt"
    words.write_text("crane\nslate\npoint\nmound\n")
    offline = ["data=wordle", f"data.words={words}", "data.games=5", "trainer.rollouts=0", "trainer.offline_rounds=2"]
    with pytest.raises(UserError, match=r"data\.words=.*list\.txt .*env\.partner\.words=bundled"):
        launch.build(tiny(*offline), RunDirectory(tmp_path))


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: games in the middle are lost on a resume, so that an online run takes another course."""
    settings = tiny(
        "data=none", "trainer.rollouts=8", "trainer.rollout_steps=40", "trainer.learning_starts=280", "trainer.batch_size=4",
        "checkpoint.every=2", "checkpoint.minutes=null", "evaluation.every=4", "trainer.log_every=2",
    )  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    launch.start(settings, whole, choices={}, command_line=[])
    tools.at_rollout(monkeypatch, 5, tools.kill)
    with pytest.raises(tools.Killed):
        launch.start(settings, broken, choices={}, command_line=[])
    launch.resume(broken, [])
    tools.assert_same_run(broken, whole)


PARTNER = """
from dqnlm.partners.base import Answer, Partner
from dqnlm.types import Bounds


class Parrot(Partner):
    alphabet, longest_opening, longest_answer, reward_bounds = "\\nab", 1, 2, Bounds(0.0, 1.0)

    def __init__(self, dialogues, *, likes: str) -> None:
        self.likes = likes

    def begin(self, places):
        return ["\\n"] * len(places)

    def answer(self, places, utterances):
        return [Answer("b\\n", float(self.likes in u), False) for u in utterances]

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""
OPTION = """# parrot: likes some letter
_target_: dqnlm.envs.dialogue.Dialogue
num_envs: 4
utterance_length: 2
max_turns: 3
partner:
  _target_: my_partner.Parrot
  likes: a
"""


def test_a_partner_from_outside(tmp_path: Path) -> None:
    """Bug: a partner of one's own needs a change in the package, or runs without permission."""
    (tmp_path / "my_partner.py").write_text(PARTNER)
    (tmp_path / "mine" / "env").mkdir(parents=True)
    (tmp_path / "mine" / "env" / "parrot.yaml").write_text(OPTION)
    typed = ["env=parrot", "data=none", "head.loss=huber", "trainer.rollouts=6", "trainer.batch_size=8", *TINY]
    command = [sys.executable, "-m", "dqnlm", "train", "--config-dir", "mine", "output_dir=out", *typed]
    permitted = [*command, "+allow_targets=[my_partner]"]
    done = subprocess.run(permitted, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "mine"
    composed, _ = composition.compose(typed, folder)
    with pytest.raises(
        UserError, match=r"env\.partner\._target_: my_partner\.Parrot (?s:.*)\+allow_targets=\[(\S+,)*my_partner\]"
    ):
        validation.validate(composed, {}, typed, config_dir=folder)
