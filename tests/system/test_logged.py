"""env=logged: runs on a log alone, from the command line to the export; what they learn, and what is refused."""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm import cli, load_policy
from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from dqnlm.utils import permissions
from dqnlm.utils.user_code import load as load_code
from tests.helpers import runs as tools

SMALL = ["network.layers=1", "network.width=32", "network.heads=2"]
TYPED = [
    "+experiment=logged", "device=cpu", "threads=1", "logger=none", "progress=false", "trainer.offline_rounds=6",
    "trainer.log_every=2", "evaluation.every=3", "checkpoint.every=2", "trainer.batch_size=8", "evaluation.samples=1",
    "network.context=24",
]  # fmt: skip
JUDGE = '''"""A point for the prompt's letter in each of the two lines of an answer."""


def score(prompts, completions, references):
    lines = [text.split("\\n") for text in completions]
    return [float(sum(line == prompt[-2] for line in said)) if len(said) == 2 else 0.0
            for prompt, said in zip(prompts, lines, strict=True)]
'''


def write_log(path: Path, prompts: int = 60, rows: int = 4, seed: int = 0) -> Path:
    """Prompts of three digits and a letter; answers of two lines, each the prompt's letter (a quarter) or the next one.

    A line that is the prompt's letter is paid 1. The single most frequent answer is paid nothing, and 1 in 16 is paid 2.
    """
    draw, found = random.Random(seed), []
    numbers = draw.sample(range(1000), prompts)
    for number in numbers:
        letter = draw.choice("abcd")
        other = "abcd"["abcd".index(letter) - 1]
        for _ in range(rows):
            said = [draw.choice([letter, other, other, other]) for _ in range(2)]
            reward = sum(line == letter for line in said)
            found.append({"prompt": f"{number:03}{letter}\n", "completion": "\n".join(said), "reward": reward})
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def settings(log: Path, *more: str, small: bool = True) -> dict[str, Any]:
    dropped = {word.split("=")[0] for word in more}
    typed = [word for word in [*TYPED, *(SMALL if small else [])] if word.split("=")[0] not in dropped]
    typed += [f"data.path='{log}'", *more]
    composed, choices = composition.compose(typed)
    return validation.validate(composed, choices, typed)


def run(folder: Path, checked: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir(parents=True)
    return launch.start(checked, folder, choices={}, command_line=["dqnlm", "train"])


def judge(folder: Path) -> list[str]:
    file = folder / "judge.py"
    file.write_text(JUDGE)
    return ["reward=function", f"reward.path={file}:score", "reward.high=2", f"+allow_targets=[{file}]"]


# What is learned

LEARNING = ["trainer.offline_rounds=150", "evaluation.every=150", "trainer.batch_size=32", "checkpoint.every=null",
            "trainer.log_every=50", "optimizer.lr=4e-3", "network.context=9"]  # fmt: skip


def test_greedy_answers_beat_the_cloned_ones(tmp_path: Path) -> None:
    """A log whose most frequent answer is its worst: cloning writes that one, the values find the best.

    ILQL must earn 1.5 of 2 on held-out prompts, and cloning (its own beta 0, and behaviour_cloning) at most .5. In ten logs
    and runs with the seeds 1 to 10 it was 2.0, 0.0 and 0.0 each time, the correlation .93 to .98 and all pairs in order: no
    false alarm in ten (below 26 % with 95 % confidence by count alone), and none near a threshold.
    """
    log = write_log(tmp_path / "log.jsonl", 200)
    ilql = run(tmp_path / "ilql", settings(log, *LEARNING, *judge(tmp_path)))["last"]
    assert ilql["eval/return"] >= 1.5, ilql
    assert ilql["eval/return_beta_0"] <= 0.5 and ilql["eval/return_logged"] < 1
    assert ilql["eval/return_correlation"] > 0.8 and ilql["eval/pair_accuracy"] > 0.8
    cloned = run(tmp_path / "cloned", settings(log, "algorithm=behaviour_cloning", *LEARNING, *judge(tmp_path)))["last"]
    assert cloned["eval/return"] <= 0.5 and "eval/return_correlation" not in cloned


# Runs


def test_scores_of_any_size_where_nothing_is_learned_from_them(tmp_path: Path) -> None:
    """Bug: after all updates the first evaluation ends the run, as the judge returned a number outside reward.low to .high; and
    a resume with other bounds is refused, though nothing is learned from them."""
    log, file = write_log(tmp_path / "log.jsonl", 60), tmp_path / "low.py"
    file.write_text("def score(prompts, completions, references):\n    return [-0.35 for _ in completions]\n")
    words = ["reward=function", f"reward.path={file}:score", "reward.low=0", "reward.high=1", f"+allow_targets=[{file}]"]
    summary = run(tmp_path / "run", settings(log, *LEARNING, "trainer.offline_rounds=3", "evaluation.every=3", *words))
    assert summary["status"] == "finished" and summary["last"]["eval/return"] == pytest.approx(-0.35)
    resumed = launch.resume(tmp_path / "run", ["reward.low=-1", "trainer.offline_rounds=5"])
    assert resumed["status"] == "finished" and resumed["totals"]["rollouts"] == 5


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe"])
def test_a_run_from_scratch_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str) -> None:
    """Bug: rows drawn otherwise after a resume, or a tokenizer made anew; texts with line breaks that end too early."""
    bpe = ["data.vocabulary_size=270"] if tokenizer == "bpe" else []
    checked = settings(write_log(tmp_path / "log.jsonl"), f"data.tokenizer={tokenizer}", *bpe)
    reference = tmp_path / "whole"
    summary = run(reference, checked)
    assert summary["totals"]["env_steps"] == 0 and summary["best"]["eval/nll_best"] > 0
    with monkeypatch.context() as patched:
        tools.at_rollout(patched, 5, tools.kill)
        with pytest.raises(tools.Killed):
            run(tmp_path / "killed", checked)
    launch.resume(tmp_path / "killed", [])
    tools.assert_same_run(tmp_path / "killed", reference)
    policy = load_policy(reference)
    [text] = policy.generate("123a\n", 20, policy="greedy")
    assert "<end>" not in text


def tiny_model(folder: Path) -> Path:
    pytest.importorskip("transformers", reason="the model is written by transformers")
    from tests.helpers import pretrained as models

    path: Path = models.write(folder, alphabet="0123456789abcd\n: ")
    return path


USER, ASSISTANT = {"role": "user"}, {"role": "assistant"}
FORMS: dict[str, tuple[str, list[dict[str, Any]], list[str]]] = {
    "messages": (
        "messages.jsonl",
        [
            {"messages": [{**USER, "content": f"{i:02}"}, {**ASSISTANT, "content": "abcd"[i % 4]}], "reward": i % 4}
            for i in range(40)
        ],
        ["40 rows are read as messages"],
    ),
    "preferences": (
        "pairs.json",
        [{"prompt": f"{i:02}\n", "chosen": "ab", "rejected": "ab" if i < 3 else "cd"} for i in range(40)],
        ["37 rows are read as preferences", "3 rows are left out: the chosen and the rejected answer are the same"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_are_trained_on_by_the_one_command(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a form that loads but does not train, or that the summary does not name."""
    model = tiny_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}: {% endif %}"
    )
    name, rows, notes = FORMS[form]
    (tmp_path / name).write_text(json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(r) + "\n" for r in rows))
    words = ["+experiment=logged_pretrained", *(w for w in TYPED[1:] if not w.startswith("network.context"))]
    named = [f"network.name_or_path={model}", "network.context=11", f"data.path={tmp_path / name}"]
    call(capsys, "train", *words, *named, f"output_dir={tmp_path / 'outputs'}")
    (folder,) = (tmp_path / "outputs").glob("*/*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["totals"]["updates"] == 6
    for note in notes:
        assert note in json.dumps(summary)


@pytest.fixture(scope="module")
def on_a_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a tiny GPT-2 by the one command; the model's folder is gone afterwards."""
    pytest.importorskip("transformers", reason="network=pretrained needs transformers")
    root = tmp_path_factory.mktemp("logged")
    model, log = tiny_model(root / "model"), write_log(root / "log.jsonl")
    words = ["+experiment=logged_pretrained", *(w for w in TYPED[1:] if not w.startswith("network.context"))]
    named = [f"network.name_or_path={model}", "network.context=11", f"data.path={log}"]
    assert cli.main(["train", *words, *named, f"output_dir={root / 'outputs'}"]) == 0
    (folder,) = (root / "outputs").glob("*/*")
    return folder


def call(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert cli.main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_model_brings_its_tokenizer_and_its_end(on_a_model: Path) -> None:
    """Bug: another vocabulary than the model's, or an end token that it does not know."""
    policy = load_policy(on_a_model)
    assert policy.tokenizer.eos_id == 1 and policy.spec.num_actions == 19  # <unk>, <end>, 17 characters
    manifest = json.loads((on_a_model / "manifest.json").read_text())
    assert manifest["versions"]["transformers"] and manifest["data"]["validation_rows"] == manifest["data"]["test_rows"] == 12
    assert manifest["data"]["logged_rows"] == 216


def test_every_command_works_on_such_a_run(
    on_a_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: a command that asks for a text, a stop that is a line break, or an export that transformers does not load."""
    run_ = str(on_a_model)
    assert call(capsys, "generate", run_, "--prompt", "123a\n", "--max-tokens", "5").startswith("123a\n")
    table = call(capsys, "eval", run_)
    assert "12 test rows" in " ".join(table.split()) and "correlation of the two" in table
    assert "test part (looked at 1 time" in " ".join(table.split())
    figures = json.loads(call(capsys, "eval", run_, "--part", "validation", "--json"))
    best = json.loads((on_a_model / "summary.json").read_text())["best"]
    assert figures["eval/nll"] == pytest.approx(best["eval/nll"], abs=1e-5)
    monkeypatch.setattr(sys, "stdin", io.StringIO("123a\n45b\n"))
    assert call(capsys, "chat", run_, "--max-tokens", "5", "--suffix", "\n")
    page = tmp_path / "page.html"
    call(capsys, "inspect", run_, "--text", "123a\na\nb", "--output", str(page))
    shown = page.read_text()
    assert "rewards of the log" in shown and "the units that data.reward_scaling=standardise left" in shown
    call(capsys, "export", run_, str(tmp_path / "exported"))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = load_policy(on_a_model)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    ids = tokenizer("123a\n", return_tensors="pt").input_ids
    own = policy.tokenizer.encode("123a\n").long()[None]
    assert ids.equal(own)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")(ids).logits
        acting = policy.logits(policy.network(own), policy.declared, None)
        chosen = acting.isfinite().all(0).all(0)  # the run never writes <unk>
        assert chosen.tolist() == [False] + [True] * 18
        expected = acting[..., chosen].log_softmax(-1)
        torch.testing.assert_close(logits[..., chosen].log_softmax(-1), expected, rtol=1e-3, atol=1e-4)


def test_a_run_on_a_model_is_trained_on(on_a_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a resume that needs what is not saved."""
    folder = tmp_path / "outputs" / "2026-01-01" / "copy"
    shutil.copytree(on_a_model, folder)
    call(capsys, "resume", str(folder), "trainer.offline_rounds=8")
    assert json.loads((folder / "summary.json").read_text())["totals"]["updates"] == 8


OTHERS = [
    ["algorithm=cql"], ["algorithm=mc_q"], ["algorithm=qr_dqn"], ["algorithm=ilql"], ["algorithm=tbrm"], ["buffer=prioritized"],
    ["network=gru"],
]  # fmt: skip


@pytest.mark.parametrize("more", OTHERS)
def test_other_algorithms_learn_from_a_log(tmp_path: Path, more: list[str]) -> None:
    """Bug: an experiment that holds for one algorithm alone."""
    small = ["network.width=16", "network.layers=1"] if more == ["network=gru"] else SMALL
    checked = settings(write_log(tmp_path / "log.jsonl"), *more, *small, small=False)
    last = run(tmp_path / "run", checked)["last"]
    assert last["eval/nll"] > 0 and -1 <= last["eval/return_correlation"] <= 1


def test_dialogues_and_episodes_of_several_rows(tmp_path: Path) -> None:
    """Bug: a partner's words are learned as the agent's, or a row that is cut is taken for an end."""
    turns = [("hi", False, None), ("ab", True, 1.0), ("so", False, None), ("b", True, 0.0)]
    spoken = [{"turns": [{"text": f"{i}{t}" if n == 0 else t, "agent": a, "reward": r} for n, (t, a, r) in enumerate(turns)]}
              for i in range(20)]  # fmt: skip
    cut = [
        {"prompt": f"{i:02}", "completion": "ab", "reward": -1, "next": f"{i + 40:02}", "episode": i} for i in range(20)
    ]
    cut += [{"prompt": f"{i + 40:02}", "completion": "c", "reward": 2, "episode": i} for i in range(20)]
    for name, rows in (("spoken", spoken), ("cut", cut)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        more = ["data.reward_scaling=divide_by_deviation"] if name == "cut" else ["data.reward_scaling=none"]
        if name == "cut":  # all its episodes are worth 1: there is no deviation
            more = ["data.reward_scaling=none"]
        last = run(tmp_path / name, settings(path, *more))["last"]
        assert last["eval/nll"] > 0 and "eval/q_taken" in last


# What is refused


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["trainer.rollouts=5"], r"nothing to play.*trainer\.rollouts=5.*trainer\.rollouts=0"),
        (["trainer.offline_rounds=0"], r"trainer\.offline_rounds, with logged data"),
        (
            ["network.context=6"],
            r"rows are longer than network\.context=6 .*line \d+.* network\.context=8, or .*max_tokens=7",
        ),
        (["reward=exact_match"], r"reward=exact_match compares token by token.*reward=none"),
        (["reward=chrf"], "needs a reference.*reward=language_model"),
        (["data=trajectories"], r"env=logged learns from a log alone.*data=logged"),
        (["env=random_walks"], "env=random_walks is a task of another kind.*env=logged"),
        (["evaluation.best_metric=eval/return"], r"eval/return is no metric that can choose .*; choose one of eval/nll_best"),
        (
            ["policy.kind=probability", "policy.beta=null", "evaluation.betas=[]"],
            "policy.kind=probability",
        ),
        (["env.horizon=0"], r"env\.horizon is 0"),
        (["buffer.capacity=80"], r"216 logged rows do not fit .*buffer\.capacity=null"),
        (["pretraining.updates=5"], r"pretraining.updates needs a task with answers of its own"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, more: list[str], message: str) -> None:
    """Bug: a run that plays what is not there, cuts a text without a word, or names no remedy."""
    log = write_log(tmp_path / "log.jsonl")
    with pytest.raises(UserError, match=message):
        trainer = launch.build(settings(log, *more), RunDirectory(tmp_path))
        trainer.components.evaluator.evaluate(trainer.components.policy)


def test_a_capacity_of_null_needs_logged_data(tmp_path: Path) -> None:
    """Bug: a ring of no rows. And reward=none is for a log alone."""
    text = tools.write_text(tmp_path / "text.txt")
    for more, message in (
        (["buffer.capacity=null"], "capacity=null is as many"),
        (["reward=none"], "reward=none: env="),
    ):
        with pytest.raises(UserError, match=message):
            launch.build(tools.settings(tools.tiny(text, *more))[0], RunDirectory(tmp_path))


def test_a_large_log_is_refused_with_the_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the machine's memory ends in the middle of reading. 216 rows and one more of 9 observations of 6 bytes."""
    monkeypatch.setattr("dqnlm.buffers.storage.free_bytes", lambda device: 10_000)
    with pytest.raises(UserError, match=r"the log needs 216 rows x 9 observations .* x 6 bytes .*data\.max_tokens=N"):
        launch.build(settings(write_log(tmp_path / "log.jsonl")), RunDirectory(tmp_path))


def test_the_command_line_says_what_is_wrong_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a traceback, another exit code, or half a run on the disk."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"prompt": "a", "completion": "b", "reward": 1}\n{"prompt": "c"}\n')
    words = ["train", *TYPED, f"output_dir={tmp_path / 'out'}"]
    assert cli.main([*words, f"data.path={log}"]) == 2
    assert "line 2 has no completion" in capsys.readouterr().err
    write_log(log)
    assert cli.main([*words, f"data.path={log}", "network=pretrained"]) == 2
    assert "name_or_path" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/*/checkpoints/*"))


def test_the_judge_of_these_tests(tmp_path: Path) -> None:
    """Bug: a judge that pays what the log does not."""
    permissions.permit_targets([str(tmp_path / "judge.py")])
    (tmp_path / "judge.py").write_text(JUDGE)
    rows = [json.loads(line) for line in write_log(tmp_path / "log.jsonl").read_text().splitlines()]
    score = load_code(f"{tmp_path / 'judge.py'}:score", "reward.path", "function")
    paid = score([r["prompt"] for r in rows], [r["completion"] for r in rows], [""] * len(rows))
    assert paid == [float(r["reward"]) for r in rows]
    permissions.forget_permissions()
