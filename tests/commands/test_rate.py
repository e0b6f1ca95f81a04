"""`dqnlm rate`: keys through a pipe and on a terminal, what is on the disk after each, and that it can be trained on."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dqnlm import cli, load_policy
from dqnlm.commands import rate, rated_training
from dqnlm.data.trajectories.files import read_file
from dqnlm.data.trajectories.ratings import Ratings, Sample, reward_of
from dqnlm.errors import UserError
from tests.helpers import runs as tools

Run = Callable[..., tuple[int, str, str]]
WALKS = ["+experiment=random_walks", "device=cpu", "logger=none", "progress=false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a text, and one on walks, which has no fitted temperature."""
    root = tmp_path_factory.mktemp("rate")
    day = root / "outputs" / "2026-01-01"
    tools.start(day / "10-00-00-words", tools.write_text(root / "text.txt"), "trainer.rollouts=4")
    overrides = [*WALKS, "trainer.offline_rounds=3", f"output_dir={root / 'outputs'}"]
    checked, choices = tools.settings(overrides)
    (day / "10-00-01-walks").mkdir()
    command = ["dqnlm", "train", *overrides]
    tools.launch.start(checked, day / "10-00-01-walks", choices=choices, command_line=command)
    return root


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("5\\nq\\n", "10-00-00")` with these lines as standard input -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(trained)

    def call(keys: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        capsys.readouterr()
        code = cli.main(["rate", *arguments, "--device", "cpu"])
        return (code, *capsys.readouterr())

    return call


def words(run: Run, file: Path, keys: str, *arguments: str) -> str:
    """Rates texts of 12 tokens after `tea`, with the keys as lines; what was printed."""
    common = ["--prompt", "tea", "--max-tokens", "12", "--output", str(file)]
    code, out, err = run("".join(f"{key}\n" for key in keys), "10-00-00", *common, *arguments)
    assert code == 0, err
    return out


def texts(trained: Path, count: int) -> list[str]:
    """What the run writes with the seeds 0, 1, ..."""
    policy = load_policy(trained / "outputs" / "2026-01-01" / "10-00-00-words", device="cpu")
    return [policy.generate("tea", 12, seed=seed)[0] for seed in range(count)]


def test_each_score_is_a_line(run: Run, trained: Path, tmp_path: Path) -> None:
    """Bug: the score of another text, a scale off by one, a skipped text kept, or a field that is missing or wrong."""
    file = tmp_path / "ratings.jsonl"
    out = words(run, file, "15xsq")
    written = tools.lines(file)
    first, second, third = texts(trained, 3)
    assert [(r["completion"], r["reward"], r["seed"]) for r in written] == [(first, 0.0, 0), (second, 1.0, 1)]
    assert set(written[0]) == {"prompt", "completion", "reward", "run", "checkpoint", "step", "seed", "time"}
    assert written[0]["run"] == "2026-01-01/10-00-00-words" and written[0]["checkpoint"] == "best"
    assert written[0]["prompt"] == "tea" and written[0]["step"] == load_policy("10-00-00", device="cpu").step
    assert out.count(rate.KEYS) == 5 and f"tea{third}" in out  # an unknown key is asked again
    assert "2 ratings" in out and "(2 of this session), mean reward 0.500" in out
    assert [reward_of(score, "unit") for score in "12345"] == [0, 0.25, 0.5, 0.75, 1]
    assert [reward_of(score, "raw") for score in "12345"] == [1, 2, 3, 4, 5]


def test_the_reader_of_trajectories_takes_the_file(run: Run, tmp_path: Path) -> None:
    """Bug: the keys beside prompt, completion and reward are refused, or the reward lands on another token."""
    file = tmp_path / "ratings.jsonl"
    words(run, file, "24", "--scale", "raw")
    found, source = read_file(str(file))
    assert [(t.prompt, t.completion) for t in found] == [(r["prompt"], r["completion"]) for r in tools.lines(file)]
    assert [t.rewards for t in found] == [(*(0.0,) * 11, 2.0), (*(0.0,) * 11, 4.0)] and source.sha256


def test_undo_goes_back_one_text_at_a_time(run: Run, trained: Path, tmp_path: Path) -> None:
    """Bug: undo removes another line, not the text's own, is lost after a skip, or shows the next text instead."""
    file = tmp_path / "ratings.jsonl"
    first, second, third = texts(trained, 3)
    words(run, file, "u1u2q")
    assert [(r["completion"], r["reward"]) for r in tools.lines(file)] == [(first, 0.25)]
    file.unlink()
    out = words(run, file, "1su3uu45q")
    assert [(r["completion"], r["reward"]) for r in tools.lines(file)] == [(first, 0.75), (second, 1.0)]
    # By hand: 1 for the first, the second skipped and brought back, 3 for it, both brought back, 4 and 5, and the third is left.
    expected = [first, second, third, second, third, second, first, second, third]
    assert re.findall(r"seed \d+\ntea(.*?)\n-{40}", out, re.DOTALL) == expected
    file.unlink()
    out = words(run, file, "12u3q", "--n", "2")  # also after the last
    assert [(r["completion"], r["reward"]) for r in tools.lines(file)] == [(first, 0.0), (second, 0.5)]
    assert "that was the last sample" in out


def test_undo_is_whole_and_touches_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a crash during an undo loses the file; a line of another program, or of an earlier session, is taken away."""
    file = tmp_path / "ratings.jsonl"
    before = b'{"prompt": "a", "completion": "b", "reward": 0.5, "mine": 1}'  # without a line break at its end
    file.write_bytes(before)
    ratings, sample = Ratings(file, "unit"), Sample("a", "c", 0)
    ratings.append(sample, "5", {"run": "r"})
    assert [r["completion"] for r in tools.lines(file)] == ["b", "c"]
    whole = file.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(UserError, match="No space left"):
            ratings.undo(sample)
    assert file.read_bytes() == whole and list(tmp_path.iterdir()) == [file]


def test_undo_restores_the_file_bit_for_bit(tmp_path: Path) -> None:
    """Bug: the line break that was put before a rating stays, or the file's own end is cut."""
    file = tmp_path / "ratings.jsonl"
    before = '{"prompt": "a", "completion": "é", "reward": 0.5}'.encode()
    file.write_bytes(before)
    ratings, sample = Ratings(file, "unit"), Sample("a", "ü\n", 0)
    for _ in range(2):
        ratings.append(sample, "5", {})
        assert [r["completion"] for r in tools.lines(file)] == ["é", "ü\n"]
        ratings.undo(sample)
        assert file.read_bytes() == before and ratings.rewards == {("a", "é"): 0.5}
    ratings.append(sample, "5", {})
    with file.open("ab") as stream:
        stream.write(before + b"\n")
    changed = file.read_bytes()
    with pytest.raises(UserError, match="another program"):
        ratings.undo(sample)
    assert file.read_bytes() == changed


def test_resumes_where_it_ended(run: Run, trained: Path, tmp_path: Path) -> None:
    """Bug: a text is rated twice; what was there is overwritten; a skipped text is never seen again."""
    file = tmp_path / "ratings.jsonl"
    first, second, third = texts(trained, 3)
    words(run, file, "1s")  # the input ends: as q
    out = words(run, file, "23", "--n", "3")
    assert f"tea{first}" not in out and f"tea{second}" in out
    assert [(r["completion"], r["reward"]) for r in tools.lines(file)] == [(first, 0.0), (second, 0.25), (third, 0.5)]
    assert "3 ratings" in out and "(2 of this session), mean reward 0.250" in out
    out = words(run, file, "5", "--n", "3")
    assert "nothing to rate" in out and len(tools.lines(file)) == 3


def test_ratings_are_on_the_disk_at_once(run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: Ctrl-C loses what was rated, or the summary."""
    file = trained / "outputs" / "2026-01-01" / "10-00-00-words" / "ratings.jsonl"
    seen: list[int] = []

    def key() -> str:
        seen.append(len(tools.lines(file)) if file.exists() else 0)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return "4\n"

    monkeypatch.setattr(rate, "read_key", key)
    code, out, _ = run("", "10-00-00", "--max-tokens", "5")  # the default file and prompt
    assert code == 130 and seen == [0, 1, 2] and [r["reward"] for r in tools.lines(file)] == [0.75, 0.75]
    assert tools.lines(file)[0]["prompt"] == "\n" and "2 ratings" in out


def test_a_single_key_press_on_a_terminal() -> None:
    """Bug: a key needs Enter, or the terminal stays without echo afterwards."""
    termios, pty = pytest.importorskip("termios"), pytest.importorskip("pty")
    master, slave = pty.openpty()
    usual = termios.tcgetattr(slave)

    def press() -> None:
        deadline = time.monotonic() + 10
        while termios.tcgetattr(slave)[3] & termios.ICANON and time.monotonic() < deadline:
            time.sleep(0.001)
        os.write(master, b"3")

    with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, closefd=False) as terminal:
        patch.setattr(sys, "stdin", terminal)
        thread = threading.Thread(target=press)
        thread.start()
        assert rate.read_key() == "3"
        thread.join()
    assert termios.tcgetattr(slave) == usual
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["10-00-00", "--n", "0"], ["--n must be at least 1"]),
        (["10-00-00", "--max-tokens", "0"], ["--max-tokens must be at least 1"]),
        (["10-00-00", "--prompt", "teQ"], ["'Q'"]),
        (["10-00-00", "--prompt", ""], ["the prompt is empty"]),
        (["10-00-00", "--temperature", "0"], ["--temperature must be above 0"]),
        (["10-00-00", "--output", "ratings.txt"], ["ends in .jsonl"]),
        (["10-00-00", "--output", "nowhere/ratings.jsonl"], ["nowhere/ratings.jsonl"]),
        (["10-00-00", "--output", "damaged.jsonl"], ["damaged.jsonl, line 2", "is no JSON"]),
        (["10-00-00", "--output", "raw.jsonl"], ["holds the reward 4", "--scale unit"]),
        (["10-00-01", "--prompt", "b"], ["writes greedily", "--temperature"]),
        (["other"], ["RUN 'other'"]),
    ],
)
def test_mistakes(run: Run, trained: Path, arguments: list[str], parts: list[str]) -> None:
    """Bug: a traceback, or a file that is not ours and is added to."""
    line = '{"prompt": "a", "completion": "b", "reward": 4}\n'
    (trained / "damaged.jsonl").write_text(line.replace("4", "1") + line[:20] + "\n")
    (trained / "raw.jsonl").write_text(line)
    before = {path: path.read_bytes() for path in trained.glob("*.jsonl")}
    code, _, err = run("5\n", *arguments)
    assert code == 2 and err.count("error:") == 1 and "Traceback" not in err
    assert all(part in err for part in parts), err
    assert before == {path: path.read_bytes() for path in trained.glob("*.jsonl")}


def test_texts_that_are_the_same_are_shown_once() -> None:
    """Bug: a person is asked the same question again and again."""

    class Fixed:
        default = declared = "boltzmann"

        def generate(
            self, prompt: str, max_tokens: int, *, policy: str, temperature: float | None, seed: int
        ) -> list[str]:
            return [["x", "y", "x", "", "z"][seed - 3]]

    arguments = rate._parser().parse_args(["run", "--prompt", "p", "--n", "5", "--seed", "3"])
    found: Iterator[Sample] = rate.samples(Fixed(), arguments, ["p"], {("p", "z")})  # type: ignore[arg-type]
    assert list(found) == [Sample("p", "x", 3), Sample("p", "y", 4)]


def test_the_command_that_is_printed_trains(run: Run, trained: Path, tmp_path: Path) -> None:
    """Bug: the command at the end does not work: another data's keys, a lost experiment, a path that is not quoted."""
    file = tmp_path / "my 'own', ratings.jsonl"
    arguments = ["--prompt", "b", "--max-tokens", "3", "--temperature", "3", "--output", str(file)]
    code, out, err = run("5\n1\n", "10-00-01", *arguments)
    assert code == 0, err
    command = shlex.split(out.split("to train on them: ")[1].strip())
    assert command[:3] == ["dqnlm", "train", "+experiment=random_walks"] and "device=cpu" in command
    assert not any(word.startswith("output_dir") for word in command)
    command[command.index(f"trainer.offline_rounds={rated_training.OFFLINE_ROUNDS}")] = "trainer.offline_rounds=2"
    assert cli.main([*command[1:], f"output_dir={tmp_path / 'out'}", "evaluation.episodes=2"]) == 0
    [manifest] = (tmp_path / "out").glob("*/*/manifest.json")
    assert json.loads(manifest.read_text())["data"]["origin"] == str(file)


def test_the_command_on_a_log_keeps_the_model(tmp_path: Path) -> None:
    """Bug: ratings of a pretrained run train on the experiment without a model; or are scaled where they may all be equal."""
    ratings = Ratings(tmp_path / "rated.jsonl", "raw")
    ratings.rewards = {("a", "b"): 5.0, ("c", "d"): 1.0}
    command = rated_training.command_on_text(
        ratings, ["dqnlm", "train", "+experiment=logged_pretrained", "network.name_or_path=gpt"]
    )
    assert "+experiment=logged_pretrained" in command and "network.name_or_path=gpt" in command
    assert "network.context" not in command and "data.reward_scaling=none" in command
    ratings.rewards |= {("e", "f"): 1.0, ("g", "h"): 5.0, ("i", "j"): 3.0}
    assert "reward_scaling" not in rated_training.command_on_text(ratings, ["+experiment=shakespeare"])


def train_on(out: str, folder: Path) -> dict[str, Any]:
    """Runs the printed command with two rounds and a tiny network; its manifest."""
    command = shlex.split(out.split("to train on them: ")[1].strip())
    assert command[:3] == ["dqnlm", "train", "+experiment=logged"] and not any("output_dir" in word for word in command)
    command[command.index(f"trainer.offline_rounds={rated_training.OFFLINE_ROUNDS}")] = "trainer.offline_rounds=2"
    smaller = [
        "device=cpu",
        "threads=1",
        "logger=none",
        "progress=false",
        "network.layers=1",
        "network.width=16",
    ]
    kept = {word.split("=")[0] for word in command}
    assert cli.main([*command[1:], f"output_dir={folder}", *(w for w in smaller if w.split("=")[0] not in kept)]) == 0
    [manifest] = folder.glob("*/*/manifest.json")
    found: dict[str, Any] = json.loads(manifest.read_text())
    assert json.loads((manifest.parent / "summary.json").read_text())["last"]["eval/nll"] > 0
    return found


def test_ratings_of_a_text_are_trained_on(run: Run, tmp_path: Path) -> None:
    """Bug: ratings of a run on a text that nothing learns from. All are of one prompt; and a log may hold line breaks."""
    out = words(run, tmp_path / "it's, rated.jsonl", "51342")
    assert "data.heldout_by=row" in out and "data.reward_scaling" not in out
    data = train_on(out, tmp_path / "out")["data"]
    assert (data["name"], data["logged_rows"], data["validation_rows"]) == ("it's, rated.jsonl", 4, 1)


def test_ratings_of_answers_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: an answer is continued beyond its line break, or the prompt is kept without the one that it was read with."""
    from tests.envs.test_prompted import NAMES, write_parallel

    pytest.importorskip("sacrebleu")
    path = write_parallel(tmp_path / "texts")
    named = [f"data.{part}={name}" for part, name in NAMES.items()]
    pairs = [
        "data=translation",
        f"data.path={path}",
        "data.source=x",
        "data.target=y",
        *named,
        "data.tokenizer=character",
    ]
    small = ["data.vocabulary_size=null", "network.layers=1", "network.width=16", "network.heads=2", "env.num_envs=8"]
    small += [
        "trainer.rollouts=2",
        "evaluation.episodes=4",
        "env.horizon=6",
        "data.max_tokens=10",
        "network.context=16",
    ]
    chosen = ["env=translation", "reward=edit_distance", "head.loss=huber", *pairs, *small, "device=cpu", "threads=1"]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *chosen, "logger=none", "progress=false"]) == 0
    for prompt in ("abc", "ab\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("5\n2\n3\n"))
        keys = ["latest", "--prompt", prompt, "--max-tokens", "6", "--temperature", "9", "--output", "rated.jsonl"]
        assert cli.main(["rate", *keys, "--device", "cpu"]) == 0
    rated = tools.lines(tmp_path / "rated.jsonl")
    assert {row["prompt"] for row in rated} == {"abc\n", "ab\n"} and not any("\n" in row["completion"] for row in rated)
    out = capsys.readouterr().out
    out = out[out.rindex("to train on them") :]  # of the second session
    assert "heldout_by" not in out
    assert train_on(out, tmp_path / "out")["data"]["logged_rows"] > 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("5\n2\n"))  # without a prompt: those of the held-out pairs take turns
    keys = ["latest", "--n", "2", "--max-tokens", "6", "--output", "own.jsonl", "--device", "cpu"]
    assert cli.main(["rate", *keys]) == 0
    asked = [row["prompt"] for row in tools.lines(tmp_path / "own.jsonl")]
    assert asked == ["ab\n", "abc\n"][: len(asked)] and asked
