"""A log of texts with rewards in two parts: what is held out, how it becomes tokens with an end, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from dqnlm.data.tokenizers import base, factory
from dqnlm.data.tokenizers.base import ByteTokenizer, CharacterTokenizer
from dqnlm.data.tokenizers.ended import END, EndedTokenizer, before_end, with_end
from dqnlm.data.trajectories import split
from dqnlm.data.trajectories.log import Log, logged
from dqnlm.data.trajectories.records import Trajectory, dialogue
from dqnlm.data.trajectories.rows import padded, token_rows
from dqnlm.errors import UserError
from dqnlm.tasks.log import shape_of
from tests.helpers.paths import CONFIGS

CPU = torch.device("cpu")


def read(path: Path, **settings: Any) -> Log:
    """`data=logged` with the defaults of its YAML, and a tokenizer of characters."""
    defaults: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "data" / "logged.yaml"), resolve=False)
    del defaults["_target_"]
    defaults["test_fraction"] = 0.0
    return logged(**{**defaults, "path": str(path), "tokenizer": "character", **settings})


def write(path: Path, lines: Sequence[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def rated(prompt: str, completion: str, reward: float, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "reward": reward, **more}


def item(prompt: str, completion: str = "x", reward: float = 1.0, episode: int = -1) -> Trajectory:
    return Trajectory(prompt, completion, (0.0,) * (len(completion) - 1) + (reward,), "", episode)


# The end token


def test_rows_with_an_end_token_by_hand() -> None:
    """Bug: the end is no decision, the reward stays before it, or a partner's turn gets one.

    Ids a 0, b 1, c 2, d 3, the end 9. `ab` -> `cd` for 2: c is chosen at 1, d at 2, the end at 3, which is paid. Of the dialogue
    a | bc (1) | d | b (3): b c end, then d, which carries, then b end; paid at the ends, times 2 and 5.
    """
    said = dialogue([("a", False, 0.0), ("bc", True, 1.0), ("d", False, 0.0), ("b", True, 3.0)], -1, "")
    each = Trajectory("a", "bc", (0.5, 2.0))
    rows = padded(token_rows([item("ab", "cd", 2.0), said, each], CharacterTokenizer("abcd"), 9), 6, torch.int64, CPU)
    assert rows.observation_BS.tolist() == [[0, 1, 2, 3, 9, 0, 0], [0, 1, 2, 9, 3, 1, 9], [0, 1, 2, 9, 0, 0, 0]]
    assert rows.flag_BT.tolist() == [[0, 1, 1, 3, 0, 0], [1, 1, 1, 0, 1, 3], [1, 1, 3, 0, 0, 0]]
    assert rows.reward_BT.tolist() == [[0, 0, 0, 2, 0, 0], [0, 0, 1, 0, 0, 3], [0.5, 2, 0, 0, 0, 0]]
    assert rows.length_B.tolist() == [4, 6, 3]


def test_an_end_that_is_written_in_the_text_is_not_put_twice() -> None:
    """Bug: a log that ends its answers itself teaches an end after the end."""
    [row] = token_rows([item("a", "bd")], CharacterTokenizer("abcd"), eos_id=3)
    assert row.ids.tolist() == [0, 1, 3]


@pytest.mark.parametrize("text", [CharacterTokenizer("abcé\n"), ByteTokenizer()])
def test_a_tokenizer_with_an_end(text: base.Tokenizer) -> None:
    """Bug: an end that is the id of a character, or a text that is cut in two within one."""
    ended = with_end(text, None)
    assert ended.eos_id == text.vocabulary_size == ended.vocabulary_size - 1
    ids = ended.encode_strict("aé\nb").tolist()
    assert (
        ended.decode([*ids, ended.eos_id, *ids])
        == "aé\nb" + END + "aé\nb"
        == "".join(ended.stream([*ids, ended.eos_id, *ids]))
    )
    assert before_end([*ids, ended.eos_id, 0], ended.eos_id) == ids == before_end(ids, None)
    again = factory.from_state(json.loads(json.dumps(ended.state())))
    assert isinstance(again, EndedTokenizer) and again.state() == ended.state()
    assert ended.encode("a").dtype == ended.dtype and ended.unknown_id == text.unknown_id


# The cut


def test_a_prompt_stands_in_one_of_three_parts(tmp_path: Path) -> None:
    """Bug: a test part that shares prompts with what is learned from or chosen by, or that changes what is learned from."""
    path = write(tmp_path / "log.jsonl", [rated(f"p{i % 50}", f"c{i}", i) for i in range(200)])
    log, without = read(path, heldout_fraction=0.2, test_fraction=0.5), read(path, heldout_fraction=0.2)
    parts = [{t.prompt for t in log.part(name).items} for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [40, 5, 5] and len(set.union(*parts)) == 50
    assert log.train.items == without.train.items and len(without.test) == 0
    assert log.fingerprint() != without.fingerprint()


def test_held_out_rows_of_one_prompt_give_no_test_part(tmp_path: Path) -> None:
    """Bug: a prompt that is torn in two, or an empty validation part."""
    path = write(tmp_path / "log.jsonl", [rated("ab"[i > 8], f"c{i}", i) for i in range(10)])
    log = read(path, test_fraction=0.5)
    assert len(log.heldout) == 1 and len(log.test) == 0
    assert any("No test part" in note for note in log.source.notes)
    with pytest.raises(UserError, match=r"data\.test_fraction"):
        read(path, test_fraction=1.0)


def test_a_file_of_test_rows(tmp_path: Path) -> None:
    """Bug: prompts of the test file that are learned from, or that choose the checkpoint."""
    path = write(tmp_path / "log.jsonl", [rated(p, "x", 1) for p in "abcdefgh"])
    test = write(tmp_path / "test.jsonl", [rated("a", "longer", 2), rated("h", "x", 3)])
    log = read(path, heldout_fraction=0.4, test_path=str(test), test_fraction=0.5)
    assert [t.prompt for t in log.test.items] == ["a", "h"]
    assert sorted(t.prompt for t in [*log.train.items, *log.heldout.items]) == list("bcdefg")
    short = read(path, heldout_fraction=0.4, test_path=str(test), max_tokens=4)
    assert [t.prompt for t in short.test.items] == ["h"] and short.left_out["test"] == 1
    with pytest.raises(UserError, match=r"data\.test_path: there is no file"):
        read(path, test_path=str(tmp_path / "none.jsonl"))


def test_a_prompt_stands_on_one_side(tmp_path: Path) -> None:
    """Bug: the same prompt is learned from and evaluated on, rows are lost or doubled, or the share is another."""
    rows = [rated(f"p{i % 50}", f"c{i}", i) for i in range(200)]
    log = read(write(tmp_path / "log.jsonl", rows), heldout_fraction=0.25)
    train, heldout = log.train.items, log.heldout.items
    assert not {t.prompt for t in train} & {t.prompt for t in heldout} and len(heldout) == 48  # 12 prompts of 4 rows
    assert sorted(int(t.completion[1:]) for t in [*train, *heldout]) == list(range(200))
    assert "Held out 48 of 200 logged rows (12 of 50 prompts)" in log.source.notes[1]
    assert len({t.prompt for t in heldout} & {f"p{i}" for i in range(13)}) < 10, "not the first ones"


def test_what_belongs_together_stays_together() -> None:
    """Bug: an episode of several rows is torn. a - b by the episode 1, b - c by the prompt b; d is alone."""
    items = [item("a", episode=1), item("b", episode=1), item("b", "y"), item("c"), item("d")]
    for fraction in (0.2, 0.5, 0.8):
        train, heldout, _ = split.split(items, fraction, "prompt", "log")
        assert any({"a", "b"} <= {t.prompt for t in side} for side in (train, heldout))
        assert train and heldout and len(train) + len(heldout) == 5
    again = split.split(items[::-1], 0.5, "prompt", "log")[1]
    assert {t.prompt for t in again} == {t.prompt for t in split.split(items, 0.5, "prompt", "log")[1]}


def test_rows_of_one_prompt(tmp_path: Path) -> None:
    """Bug: ratings of one prompt cannot be learned from; or equal rows stand on both sides."""
    path = write(tmp_path / "log.jsonl", [rated("\n", f"text {i // 2}", i % 5) for i in range(20)])
    with pytest.raises(UserError, match=r"all 20 rows .* the same prompt.*heldout_by=row.*heldout_path"):
        read(path)
    log = read(path, heldout_by="row", heldout_fraction=0.2)
    assert len(log.heldout) == 4
    assert not {t.completion for t in log.train.items} & {t.completion for t in log.heldout.items}


def test_a_file_of_its_own_is_held_out(tmp_path: Path) -> None:
    """Bug: prompts of that file are learned from, without a word."""
    path = write(tmp_path / "log.jsonl", [rated(p, "x", 1) for p in "aabc"])
    other = write(tmp_path / "other.jsonl", [rated(p, "xy", 0) for p in "ad"])
    log = read(path, heldout_path=str(other))
    assert [t.prompt for t in log.train.items] == ["b", "c"] and len(log.heldout) == 2
    assert "2 logged rows are left out" in log.source.notes[2]
    assert "4 held-out characters do not occur in the training part" in log.source.notes[-1]  # a, d and y twice
    assert len(read(path, heldout_path=str(other), heldout_by="row").train) == 4
    with pytest.raises(UserError, match=r"data\.heldout_path: there is no file"):
        read(path, heldout_path=str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="nothing is left to learn from"):
        read(write(tmp_path / "a.jsonl", [rated("a", "x", 1)]), heldout_path=str(other))


def test_a_file_of_its_own_tears_no_episode(tmp_path: Path) -> None:
    """Bug: an episode loses its last row, which held its reward, or an equal row stands on both sides."""
    episodes = [
        rated(p, "x", r) | {"episode": e}
        for e, rows in enumerate([[("a", 0), ("b", 1)], [("c", 0), ("d", 2)]])
        for p, r in rows
    ]
    path, other = write(tmp_path / "log.jsonl", episodes), write(tmp_path / "other.jsonl", [rated("b", "y", 0)])
    log = read(path, heldout_path=str(other))
    assert [t.prompt for t in log.train.items] == ["c", "d"] and "2 logged rows are left out" in log.source.notes[2]
    same = write(tmp_path / "same.jsonl", [rated("d", "x", 5), rated("e", "x", 5)])
    log = read(path, heldout_path=str(same), heldout_by="row")
    assert [t.prompt for t in log.train.items] == ["a", "b"] and "equal rows are held out" in log.source.notes[2]


def test_half_a_character_is_refused_with_its_line(tmp_path: Path) -> None:
    """Bug: a traceback of the tokenizer, or a text that cannot be written out again."""
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"prompt": "ab", "completion": "c", "reward": 1}\n{"prompt": "a\\ud800", "completion": "c", "reward": 1}\n'
    )
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: prompt has '\\ud800' at position 2"):
        read(path)


def test_the_scale_is_the_training_part_s(tmp_path: Path) -> None:
    """Bug: held-out returns in other units. Of 0, 2 and 4: mean 2, deviation sqrt(8 / 3)."""
    path = write(tmp_path / "log.jsonl", [rated(p, "x", r) for p, r in zip("abc", (0, 2, 4), strict=True)])
    other = write(tmp_path / "other.jsonl", [rated("d", "x", 10)])
    log = read(path, heldout_path=str(other), reward_scaling="standardise")
    unit = (8 / 3) ** 0.5
    assert [sum(t.rewards) for t in log.train.items] == pytest.approx([-2 / unit, 0, 2 / unit])
    assert sum(log.heldout.items[0].rewards) == pytest.approx(8 / unit)
    best = read(path, heldout_path=str(other), keep_best=0.5)
    assert [t.prompt for t in best.train.items] == ["b", "c"] and len(best.heldout) == 1


def test_long_rows_are_left_out_by_their_tokens(tmp_path: Path) -> None:
    """Bug: off by the end token; or half an episode is kept. `p` and `c` * n and the end are n + 2 tokens."""
    rows = [rated(f"{i}", "c" * i, 1) for i in range(1, 9)]
    path = write(tmp_path / "log.jsonl", rows)
    log = read(path, max_tokens=6, heldout_fraction=0.3)
    kept = [*log.train.items, *log.heldout.items]
    assert sorted(len(t.completion) for t in kept) == [1, 2, 3, 4]
    assert log.longest == 5 and any("4 logged rows of more than 6 tokens" in note for note in log.source.notes)
    with pytest.raises(UserError, match=r"max_tokens=2 leaves no row of the .* part; its shortest has \d tokens"):
        read(path, max_tokens=2)


def test_fingerprints_differ_where_the_run_would(tmp_path: Path) -> None:
    """Bug: a run is resumed on another cut."""
    path = write(tmp_path / "log.jsonl", [rated(f"p{i}", "x", i) for i in range(10)])
    same, other, ended = read(path), read(path, heldout_fraction=0.3), read(path, end_token=False)
    assert same.fingerprint() == read(path).fingerprint()
    assert len({log.fingerprint() for log in (same, other, ended)}) == 3


def test_the_shape_of_rows(tmp_path: Path) -> None:
    """Bug: rows that are cut are taken for whole episodes, or bounds hold for rewards that add up."""
    plain = shape_of(read(write(tmp_path / "plain.jsonl", [rated(f"{i}ab", "xy", i) for i in range(4)])))
    assert plain.paid_at_end and not plain.multi_turn and not plain.cut
    assert (plain.row_transitions, plain.first_decision, plain.longest_completion) == (5, 2, 3)
    turns = [{"text": t, "agent": a, "reward": 1 if a else None} for t, a in (("p", False), ("x", True), ("q", False))]
    spoken = [{"turns": [{**turns[0], "text": f"{i}"}, *turns[1:], turns[1]]} for i in range(4)]
    talk = shape_of(read(write(tmp_path / "talk.jsonl", spoken)))
    assert talk.multi_turn and not talk.paid_at_end and not talk.cut
    following = [rated(f"{i}", "x", 0, next=f"n{i}", episode=i) for i in range(4)]
    assert shape_of(read(write(tmp_path / "next.jsonl", following)))[4:6] == (True, 2)
    following[0]["next"] = "n"
    with pytest.raises(UserError, match=r"4 rows .* `next` text, of 1 to 2 tokens.*turns"):
        shape_of(read(write(tmp_path / "uneven.jsonl", following)))


WRONG: list[tuple[list[Any], dict[str, Any], str]] = [
    (['{"prompt": "a"'], {}, r"line 1 is no JSON"),
    ([rated("a", "x", 1), {"prompt": "b", "completion": "y"}], {}, r"line 2 has no reward"),
    ([rated("a", "", 1)], {}, r"line 1: completion is empty"),
    ([rated("a", "x", 1)], {}, r"holds a single row"),
    ([], {}, "is empty"),
    ([rated(p, "x", 1) for p in "ab"], {"heldout_fraction": 1.0}, r"heldout_fraction is a share"),
    ([rated(p, "x", 1) for p in "ab"], {"tokenizer": None}, r"data\.tokenizer is null.*name_or_path"),
    ([rated(p, "x", 1) for p in "ab"], {"vocabulary_size": 300}, r"bpe needs data\.vocabulary_size"),
    ([rated(p, "x", 1) for p in "ab"], {"reward_scaling": "standardise"}, "no variance"),
    (
        [{"prompt": p, "completion": "éé", "rewards": [1, 1]} for p in "ab"],
        {"tokenizer": "byte"},
        r"line \d: there are 2 rewards, but the completion is 4 tokens.*tokenizer of characters",
    ),
]


@pytest.mark.parametrize(("lines", "settings", "message"), WRONG)
def test_what_cannot_be(tmp_path: Path, lines: list[Any], settings: dict[str, Any], message: str) -> None:
    """Bug: a traceback, or a message that does not say which line."""
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "log.jsonl", lines), **settings)


def write_model_files(folder: Path, **files: Any) -> Path:
    """A tokenizer of two special tokens and a few letters, and JSON files beside it."""
    pytest.importorskip("transformers", reason="the model is written by transformers")
    from tests.helpers import pretrained as models

    folder.mkdir()
    models.tiny_gpt2.write_tokenizer(folder, "abcx0123456789")
    (folder / "tokenizer_config.json").unlink()
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config": {"eos_token": "<end>"}}, 1),
        ({"special_tokens_map": {"eos_token": {"content": "<end>"}}}, 1),
        ({"tokenizer_config": {"eos_token": None}, "config": {"eos_token_id": 3}}, 3),
        ({"generation_config": {"eos_token_id": [2, 3]}, "config": {"eos_token_id": 3}}, 2),
        ({"config": {"eos_token_id": 999}}, None),
    ],
)
def test_a_model_s_end_of_text(tmp_path: Path, files: dict[str, Any], expected: int | None) -> None:
    """Bug: another token than the model ends with, or one that is not there."""
    pytest.importorskip("transformers", reason="pretrained models")
    folder = write_model_files(tmp_path / "model", **files)
    log = write(tmp_path / "log.jsonl", [rated("a", "x", 1), rated("b", "x", 0)])
    if expected is None:
        with pytest.raises(UserError, match=r"names the model's end-of-text token.*data\.end_token=false"):
            read(log, tokenizer=str(folder))
        assert read(log, tokenizer=str(folder), end_token=False).tokenizer.eos_id is None
    else:
        assert read(log, tokenizer=str(folder)).tokenizer.eos_id == expected
    with pytest.raises(UserError, match=r"log\.jsonl, line \d, prompt: .*'z' \(position 1\)"):
        read(
            write(tmp_path / "log.jsonl", [rated("z", "x", 1), rated("z1", "x", 0)]),
            tokenizer=str(folder),
            end_token=False,
        )


def test_a_tokenizer_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a name that network.name_or_path takes is no tokenizer. The Hub is played by a folder."""
    pytest.importorskip("transformers", reason="pretrained models")
    import huggingface_hub

    folder = write_model_files(tmp_path / "model", tokenizer_config={"eos_token": "<end>"})

    def download(repository: str, name: str, local_files_only: bool) -> str:
        if repository != "owner/name" or not (folder / name).is_file():
            raise FileNotFoundError(name)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    log = write(tmp_path / "log.jsonl", [rated("a", "x", 1), rated("b", "x", 0)])
    assert read(log, tokenizer="owner/name").tokenizer.eos_id == 1
    with pytest.raises(UserError, match=r"data\.tokenizer=owner/other: there is no"):
        read(log, tokenizer="owner/other")


def test_left_out_rows_of_a_held_out_file_are_said(tmp_path: Path) -> None:
    """Bug: rows of data.heldout_path that vanish without a word, or that are counted with those of data.path."""
    log = write(tmp_path / "log.jsonl", [{"prompt": "a", "chosen": "x", "rejected": "y"}])
    other = [{"prompt": "b", "chosen": "x", "rejected": "y"}, {"prompt": "c", "chosen": "x", "rejected": "x"}]
    notes = read(log, heldout_path=str(write(tmp_path / "other.jsonl", other))).source.notes
    same = "1 row is left out: the chosen and the rejected answer are the same (data.heldout_path)"
    assert notes[0] == "1 row is read as preferences" and {f"{notes[0]} (data.heldout_path)", same} <= set(notes)
