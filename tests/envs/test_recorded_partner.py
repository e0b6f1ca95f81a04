"""A partner that says recorded turns: what it says and pays, by hand; parts of the file; a run that is killed and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.data.pairs.files import read_dialogues
from dqnlm.envs.dialogue import Dialogue
from dqnlm.errors import UserError
from dqnlm.partners.recorded import Recorded
from dqnlm.partners.wordle import Wordle
from dqnlm.types import DECISION, TERMINATED
from tests.helpers import runs as tools

pytest.importorskip("sacrebleu")
LINES = ["hello __eou__ hi you __eou__ how __eou__ fine __eou__ bye __eou__", "a __eou__ b __eou__"]
LONG = "short __eou__ ok __eou__ " + "x" * 30 + " __eou__ yes __eou__"


def write(folder: Path, lines: list[str] = LINES) -> str:
    (folder / "talk.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder / "talk.txt")


def make(path: str, evaluating: bool = False, places: int = 2, seed: int = 0, **options: Any) -> Recorded:
    settings: dict[str, Any] = {"path": path, "heldout_fraction": 0.5, "turn_length": 20} | options
    return Recorded(places, seed, evaluating, read_dialogues, **settings)


def test_turns_and_rewards_by_hand(tmp_path: Path) -> None:
    """hello - (hi you) - how - (fine); `bye` is answered by nobody, so it is not said.

    Bug: the answer to another turn paid, a turn of the agent's said by the partner, or a dialogue that never ends.
    """
    partner = make(write(tmp_path))
    assert partner.begin([0, 1]) == ["hello\n", "hello\n"]  # the second line is held out
    first, second = partner.answer([0, 1], ["hi you\n", "zzz\n"])
    assert (first.text, first.reward, first.over) == ("how\n", pytest.approx(1.0), False)
    assert (second.text, second.reward, second.over) == ("how\n", 0.0, False)
    last = partner.answer([0], ["fine"])[0]
    assert last.over and last.reward == pytest.approx(1.0)
    assert partner.answer([1], ["find\n"])[0].reward == pytest.approx(
        partner._metric.sentence_score("find", ["fine"]).score / 100
    )
    assert partner.begin([1]) == ["hello\n"] and partner.answer([1], ["hi you"])[0].reward == pytest.approx(1.0)
    assert partner.alphabet == "".join(sorted(set("\nhello hi you how fine bye a b"))) and partner.longest_answer == 7
    heldout = make(write(tmp_path), evaluating=True)
    assert heldout.begin([0, 1]) == ["a\n", "a\n"] and heldout.answer([0], ["b"])[0].over


def test_long_turns_and_parts(tmp_path: Path) -> None:
    """Bug: a turn longer than a row has room for, or one dialogue in both parts."""
    path = write(tmp_path, [LONG, *(f"q{i} __eou__ a{i} __eou__" for i in range(9))])
    training = make(path, heldout_fraction=0.3, places=200)
    assert training.longest_opening == 6 and "10 of its 10" in training.notes()[0]
    begun = set(training.begin(list(range(200))))
    assert begun == {"short\n", *(f"q{i}\n" for i in range(6))} and training.answer([0], ["ok"])[0].over
    evaluating = make(path, evaluating=True, heldout_fraction=0.3, places=4)
    assert evaluating.begin([0, 1, 2, 3]) == ["q6\n", "q7\n", "q8\n", "q6\n"] == evaluating.begin([0, 1, 2, 3])


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(UserError, match=r"raise env\.partner\.turn_length"):
        make(path, turn_length=1)
    for wrong in ({"heldout_fraction": 1.0}, {"turn_length": 0}):
        with pytest.raises(UserError, match=r"env\.partner\.heldout_fraction must"):
            make(path, **wrong)
    with pytest.raises(UserError, match=r"env\.partner\.path: there is no file"):
        make(path + "x")
    state = make(path).state_dict()
    write(tmp_path, [*LINES, "c __eou__ d __eou__"])
    with pytest.raises(UserError, match="sha256 differs"):
        make(path).load_state_dict(state)


def test_a_row_by_hand(tmp_path: Path) -> None:
    """Bug: the partner's turn is a decision, or the reward stands elsewhere than at the utterance's last character."""
    path = write(tmp_path, ["a __eou__ b __eou__ c __eou__ a __eou__", *LINES])
    env = Dialogue(
        torch.device("cpu"), lambda node: make(path, places=1, heldout_fraction=0.6), num_envs=1, utterance_length=4,
        max_turns=3, partner={},
    )  # fmt: skip
    page, rewards, flags = env.spec.alphabet[int(env.reset())], [], []
    for character in "?b\n??a\n":  # the first reads the rest of `a`, two read `c`: nothing is chosen there
        step = env.step(torch.tensor([env.spec.alphabet.index(character if character != "?" else "h")]))
        page += env.spec.alphabet[int(step.observation_E)]
        rewards.append(float(step.reward_E))
        flags.append(int(step.flag_E))
    assert page == "a\nb\nc\na\n"
    assert flags == [0, DECISION, DECISION, 0, 0, DECISION, DECISION | TERMINATED]
    assert rewards == pytest.approx([0, 0, 1, 0, 0, 0, 1])


def test_demonstrations_are_what_was_said(tmp_path: Path) -> None:
    """hello - (hi y, cut) - how - (fine): bye answers nobody. Bug: the partner's turns cloned, an end too early or late."""
    env = Dialogue(
        torch.device("cpu"),
        lambda node: make(write(tmp_path), places=1),
        num_envs=1,
        utterance_length=4,
        max_turns=2,
        partner={},
    )
    rows = env.demonstrate(1, torch.Generator().manual_seed(0), with_rewards=True)
    assert rows is not None
    length = int(rows.length_B[0])
    assert "".join(env.spec.alphabet[i] for i in rows.observation_BS[0, : length + 1].tolist()) == "hello\nhi yhow\nfine"
    decided = [4 + 1 + i for i in range(4)] + [5 + 4 + 4 + i for i in range(4)]
    flags = rows.flag_BT[0].tolist()
    assert [t for t, flag in enumerate(flags) if flag & DECISION] == decided
    assert [t for t, flag in enumerate(flags) if flag & TERMINATED] == [16] and length == 17
    paid = rows.reward_BT[0].nonzero()[:, 0].tolist()
    assert (
        paid == [8, 16] and float(rows.reward_BT[0, 16]) == pytest.approx(1) and 0.3 < float(rows.reward_BT[0, 8]) < 1
    )
    assert torch.equal(rows.action_BT, rows.observation_BS[:, 1:])
    silent = Dialogue(
        torch.device("cpu"), lambda node: Wordle(1, 0, False, words="bundled", legal_words=False),
        num_envs=1, utterance_length=6, max_turns=6,
        partner={},
    )  # fmt: skip
    assert silent.demonstrate(1, torch.Generator(), with_rewards=False) is None


SETTINGS = [
    "data=none", "network=gru", "network.context=80", "network.width=8", "head.loss=huber", "env.num_envs=4",
    "env.utterance_length=8", "env.partner.turn_length=12", "env.partner.heldout_fraction=0.4", "trainer.rollout_steps=60",
    "trainer.learning_starts=480", "buffer.capacity=4000", "evaluation.best_metric=null", "pretraining.updates=2",
]  # fmt: skip


def test_a_run_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a dialogue that starts anew where a run is killed, or one drawn twice."""
    path = write(tmp_path, [f"so {i} __eou__ yes {i} __eou__ and __eou__ no {i} __eou__" for i in range(12)])
    whole = ["env=recorded_dialogue", f"env.partner.path='{path}'", *SETTINGS]
    monkeypatch.setattr(tools, "TINY", [o for o in tools.TINY if not o.startswith("env.horizon")])
    tools.start(tmp_path / "whole", None, *whole)
    tools.at_rollout(monkeypatch, 7, tools.kill)
    with pytest.raises(tools.Killed):
        tools.start(tmp_path / "cut", None, *whole)
    launch.resume(tmp_path / "cut", [])
    tools.assert_same_run(tmp_path / "cut", tmp_path / "whole")
