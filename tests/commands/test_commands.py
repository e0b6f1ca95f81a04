"""The commands that read a run: generate, eval, resume with overrides, runs, report; and `load_policy` from Python."""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dqnlm import cli, load_policy
from dqnlm.errors import UserError
from tests.helpers import runs as tools

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a transformer that has learned a little, and a GRU."""
    root = tmp_path_factory.mktemp("commands")
    text = tools.write_text(root / "text.txt")
    tools.start(root / "outputs" / "2026-01-01" / "10-00-00-first", text, "optimizer.lr=1e-2", "trainer.rollouts=24")
    tools.start(root / "outputs" / "2026-01-01" / "10-00-01-second", text, "network=gru", "trainer.rollouts=4", "seed=1")
    return root


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("generate", "latest")` beside `outputs/` -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(trained)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(list(arguments))
        return (code, *capsys.readouterr())

    return call


def generated(run: Run, *arguments: str) -> str:
    code, out, err = run("generate", "10-00-00", "--device", "cpu", *arguments)
    assert code == 0, err
    return out


def test_generate_continues_the_prompt(run: Run) -> None:
    """Bug: prompt lost or printed twice, a wrong number of tokens, or text among the messages of stderr."""
    out = generated(run, "--prompt", "the tea", "--max-tokens", "50")
    assert out.startswith("the tea") and len(out) == len("the tea") + 50 + 1
    assert generated(run, "--max-tokens", "3")[0] == "\n"
    err = run("generate", "10-00-00", "--checkpoint", "last", "--max-tokens", "1")[2]
    assert "checkpoint last (step 24), policy boltzmann" in err


def test_generate_draws_from_its_seed(run: Run) -> None:
    """Bug: the seed does nothing, the greedy policy draws, or all of several texts are the same."""
    arguments = ["--prompt", "tea", "--max-tokens", "60"]
    one = generated(run, *arguments, "--seed", "1")
    assert one == generated(run, *arguments, "--seed", "1") != generated(run, *arguments, "--seed", "2")
    greedy = [generated(run, *arguments, "--policy", "greedy", "--seed", seed) for seed in "12"]
    assert greedy[0] == greedy[1]
    assert greedy[0] == generated(run, *arguments, "--top-k", "1", "--seed", "5")
    several = generated(run, *arguments, "--n", "3", "--seed", "1").split("\n" + "-" * 40 + "\n")
    assert len(several) == 3 and len(set(several)) == 3 and several[0] == one


def test_generate_ends_before_the_stop_string(run: Run) -> None:
    """Bug: the stop string, or its beginning, is printed; a stop string over several tokens is missed."""
    whole = generated(run, "--prompt", "tea", "--max-tokens", "200").removesuffix("\n").removeprefix("tea")
    stop = whole[20:22]
    cut = generated(run, "--prompt", "tea", "--max-tokens", "200", "--stop", stop).removesuffix("\n").removeprefix("tea")
    assert cut == whole[: whole.index(stop)] and len(cut) <= 20
    never = generated(run, "--prompt", "tea", "--max-tokens", "200", "--stop", "ZZ").removesuffix("\n").removeprefix("tea")
    assert never == whole


def test_generate_beyond_the_context(run: Run) -> None:
    """Bug: the cache of 17 observations overflows; a prompt longer than the context is refused."""
    assert len(generated(run, "--prompt", "tea", "--max-tokens", "100")) == 104
    long = "the sea at ten " * 10
    assert generated(run, "--prompt", long, "--max-tokens", "40").startswith(long)


def test_prompt_from_a_file_and_from_standard_input(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a line break is added or lost; the wrong stream is read."""
    (tmp_path / "prompt.txt").write_text("ten\nhen")
    expected = generated(run, "--prompt", "ten\nhen", "--max-tokens", "20")
    assert generated(run, "--prompt-file", str(tmp_path / "prompt.txt"), "--max-tokens", "20") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ten\nhen")))
    assert generated(run, "--prompt-file", "-", "--max-tokens", "20") == expected


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--prompt", "teQ at Zen"], ["Q", "Z"]),
        (["--prompt", ""], ["the prompt is empty"]),
        (["--prompt-file", "nowhere.txt"], ["nowhere.txt"]),
        (["--temperature", "0"], ["--temperature must be above 0", "--policy greedy"]),
        (["--top-k", "0"], ["--top-k"]),
        (["--max-tokens", "0"], ["--max-tokens"]),
        (["--n", "0"], ["--n"]),
        (["--policy", "probability"], ["is not the probability", "boltzmann or greedy"]),
        (["--checkpoint", "7"], ["no checkpoint '7'", "best, last, 21, 24"]),
        (["--device", "cuda:99"], ["cuda:99"]),
    ],
)
def test_mistakes_in_generate(run: Run, arguments: list[str], parts: list[str]) -> None:
    """Bug: a traceback, or half a text before the message."""
    code, out, err = run("generate", "10-00-00", *arguments)
    assert code == 2 and not out and err.count("error:") == 1 and "Traceback" not in err
    assert all(part in err for part in parts), err


def test_damaged_checkpoint_in_generate(run: Run, trained: Path, tmp_path: Path) -> None:
    """Bug: a traceback, or silence, about a checkpoint that is damaged."""
    shutil.copytree(trained / "outputs" / "2026-01-01" / "10-00-00-first", tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").rglob("policy.pt"):
        file.write_bytes(file.read_bytes()[:-9])
    code, out, err = run("generate", str(tmp_path / "run"))
    assert code == 2 and not out and "damaged" in err and "Traceback" not in err


def test_eval_repeats_the_figures_of_the_run(run: Run, trained: Path) -> None:
    """Bug: another text, another policy, another checkpoint, or other windows than in training."""
    code, out, err = run("eval", "10-00-00", "--json", "--checkpoint", "last", "--part", "validation")
    assert code == 0, err
    figures = json.loads(out)
    lines = tools.metrics(trained / "outputs" / "2026-01-01" / "10-00-00-first")
    logged = [line for line in lines if "eval/accuracy" in line][-1]
    for name in ("eval/accuracy", "eval/nll", "eval/return", "eval/return_best_constant", "eval/distinct_2"):
        assert math.isclose(figures[name], logged[name], rel_tol=1e-6), name
    assert figures["step"] == 24 and figures["checkpoint"] == "last"
    shown = run("eval", "10-00-00")[1]
    assert all(word in shown for word in ("checkpoint best", "text.txt", "unigram", "bigram", "uniform", "sample"))


def test_eval_scores_the_test_part_and_counts_the_looks(run: Run, trained: Path, tmp_path: Path) -> None:
    """Bug: the part that chose the checkpoint is reported as the test, or a look at the test part is not counted."""
    folder = tmp_path / "run"
    shutil.copytree(trained / "outputs" / "2026-01-01" / "10-00-00-first", folder)
    (folder / "test_looks.json").unlink(missing_ok=True)
    validation = json.loads(run("eval", str(folder), "--json", "--part", "validation")[1])
    assert validation["part"] == "validation" and "test_looks" not in validation
    assert not (folder / "test_looks.json").exists()
    test = json.loads(run("eval", str(folder), "--json")[1])
    assert test["part"] == "test" and test["test_looks"] == 1 and test["eval/nll"] != validation["eval/nll"]
    assert "test part (looked at 2 times" in " ".join(run("eval", str(folder))[1].split())
    other = tmp_path / "end.txt"
    other.write_text((trained / "text.txt").read_text()[-200:])
    same = json.loads(run("eval", str(folder), "--json", "--data-path", str(other))[1])
    assert math.isclose(same["eval/nll"], test["eval/nll"])
    assert json.loads((folder / "test_looks.json").read_text()) == {"looks": 2}
    code, _, err = run("eval", str(folder), "--part", "train")
    assert code == 2 and "validation, test" in err
    code, _, err = run("eval", str(folder), "--part", "test", "--data-path", str(other))
    assert code == 2 and "leave one of them out" in err


@pytest.mark.parametrize("content", ["", "[]", '{"looks": -1}', '{"looks": true}', "{}", None])
def test_a_damaged_count_of_looks(run: Run, trained: Path, tmp_path: Path, content: str | None) -> None:
    """Bug: a traceback, or a count that begins anew without a word."""
    folder = tmp_path / "run"
    shutil.copytree(trained / "outputs" / "2026-01-01" / "10-00-00-first", folder)
    (folder / "test_looks.json").unlink(missing_ok=True)
    if content is None:
        (folder / "test_looks.json").mkdir()
    else:
        (folder / "test_looks.json").write_text(content)
    code, out, err = run("eval", str(folder), "--json")
    assert code == 2 and not out and "test_looks.json" in err and "Traceback" not in err
    assert run("eval", str(folder), "--json", "--part", "validation")[0] == 0


def test_eval_on_another_text(run: Run, trained: Path, tmp_path: Path) -> None:
    """Bug: the other text is cut, or its unknown characters crash, or count as known."""
    other = tmp_path / "other.txt"
    other.write_text((trained / "text.txt").read_text()[-200:])
    own = json.loads(run("eval", "10-00-00", "--json")[1])
    same = json.loads(run("eval", "10-00-00", "--json", "--data-path", str(other))[1])
    assert math.isclose(same["eval/accuracy"], own["eval/accuracy"]) and math.isclose(same["eval/nll"], own["eval/nll"])
    other.write_text(other.read_text().replace("e", "Q"))
    code, out, err = run("eval", "10-00-00", "--data-path", str(other))
    assert code == 0, err
    assert f"{other.read_text().count('Q')} characters are unknown" in out
    worse = json.loads(run("eval", "10-00-00", "--json", "--data-path", str(other))[1])
    assert worse["eval/accuracy"] < own["eval/accuracy"] and math.isfinite(worse["eval/nll"])


@pytest.mark.parametrize(
    ("content", "part"),
    [("", "empty"), ("tea", "needs at least 17"), ("ЖЖЩЩ" * 50, "unknown"), (None, "nothing.txt")],
    ids=["empty", "short", "all unknown", "missing"],
)
def test_texts_that_cannot_be_scored(run: Run, tmp_path: Path, content: str | None, part: str) -> None:
    """Bug: a traceback, or figures of nothing."""
    path = tmp_path / "nothing.txt"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    code, out, err = run("eval", "10-00-00", "--data-path", str(path))
    assert code == 2 and not out and part in err and "Traceback" not in err


@pytest.mark.parametrize("words", [["quick", "brown", "fox"], tools.WORDS], ids=["another vocabulary", "the same"])
def test_eval_where_the_training_text_has_changed(run: Run, trained: Path, tmp_path: Path, words: list[str]) -> None:
    """Bug: a run is scored on a text with another vocabulary, or as its own held-out part on another text."""
    folder = tmp_path / "run"
    shutil.copytree(trained / "outputs" / "2026-01-01" / "10-00-00-first", folder)
    other = tools.write_text(tmp_path / "other.txt", seed=1, words=words)
    settings = (folder / "config.yaml").read_text().replace(str(trained / "text.txt"), str(other))
    (folder / "config.yaml").write_text(settings)
    code, out, err = run("eval", str(folder))
    assert code == 2 and not out and "is not what this run was trained on" in err and "sha256" in err and "--data-path" in err


def test_resume_with_overrides(run: Run, trained: Path, tmp_path: Path) -> None:
    """Bug: overrides are lost or refused; a finished run is not said to be finished."""
    folder = tmp_path / "run"
    shutil.copytree(trained / "outputs" / "2026-01-01" / "10-00-01-second", folder)
    code, _, err = run("resume", str(folder))
    assert code == 2 and "is finished (4 rollouts)" in err and "trainer.rollouts=8" in err
    assert run("resume", str(folder), "trainer.rollouts=8", "evaluation.every=8")[0] == 0
    assert tools.metrics(folder)[-1]["step"] == 8
    code, _, err = run("resume", str(folder), "trainer.rolouts=12")
    assert code == 2 and "trainer.rollouts" in err
    assert run("resume", "nothing-like-it")[0] == 2


def test_runs_and_report_on_real_runs(run: Run, tmp_path: Path) -> None:
    """Bug: what training writes is not what the tables read."""
    found = json.loads(run("runs", "--json")[1])
    assert [row["name"] for row in found] == ["2026-01-01/10-00-00-first", "2026-01-01/10-00-01-second"]
    assert found[0]["status"] == "finished" and found[0]["step"] == 24 and 0 < found[0]["eval/accuracy"] <= 1
    code, out, err = run("report", "10-00-00", "10-00-01", "--output", str(tmp_path / "report.html"))
    assert code == 0, err
    assert "network" in out and "seed" in out
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page and "eval/accuracy" in page and "http-equiv=\"refresh\"" not in page


def test_load_policy_from_python(trained: Path) -> None:
    """Bug: the Python door gives other text than the command, keeps gradients or dropout, or needs the data."""
    folder = trained / "outputs" / "2026-01-01" / "10-00-00-first"
    policy = load_policy(folder, "last", device="cpu")
    assert policy.step == 24 and not policy.network.training
    assert not any(parameter.requires_grad for parameter in policy.network.parameters())
    texts = policy.generate("tea", 30, n=2, seed=3)
    assert [len(text) for text in texts] == [30, 30] and texts == policy.generate("tea", 30, n=2, seed=3)
    assert policy.generate("tea", 30, n=2, seed=3, stop=texts[0][5])[0] == texts[0][: texts[0].index(texts[0][5])]
    columns: list[Any] = list(policy.stream("tea", 5, n=2, seed=3))
    assert len(columns) == 5 and [row[0] for row in columns] == policy.tokenizer.encode(texts[0][:5]).tolist()
    with pytest.raises(UserError, match="no such folder"):
        load_policy("nothing", output_dir=trained / "outputs")


@pytest.mark.parametrize(("known", "prompt"), [("ab\n ", "\n"), ("b a", " "), ("zb", "b"), ("ы", "ы")])
def test_the_default_prompt_of_generate_is_one_that_the_run_knows(known: str, prompt: str) -> None:
    """Bug: `dqnlm generate RUN`, as its help and the end of a run show it, is refused by a run of a text without line breaks."""
    from dqnlm.commands.generate import _default

    tokenizer = SimpleNamespace(count_unknown=lambda text: sum(letter not in known for letter in text))
    assert _default(cast(Any, SimpleNamespace(tokenizer=tokenizer))) == prompt
