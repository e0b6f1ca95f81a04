"""Where the files of a run lie is not what they are: each kind of run goes on, and is scored, when all its files have moved.

A kind of run is its settings and its files. All are moved at once, so that one message has to name each of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from dqnlm import cli
from dqnlm.utils import permissions, user_code
from tests.golden import data_files
from tests.golden.runs import LASTING, LOGGED, MODEL, OFFLINE, ONLINE, PAIRS, SCREEN, TRANSFORMER
from tests.helpers import runs as tools
from tests.system.test_prompts import OWN_NETWORK
from tests.system.test_prompts import TYPED as PROMPTS

JUDGE = "def score(prompts, completions, references):\n    return [text.count('e') / 9 for text in completions]\n"
WORDS = ("apple", "bread", "crane", "dance", "eagle", "flame", "grape", "house")
ENV = '''"""Walk to the end of a corridor."""
import gymnasium

class Corridor(gymnasium.Env):
    def __init__(self):
        self.observation_space, self.action_space = gymnasium.spaces.Discrete(4), gymnasium.spaces.Discrete(2)
        self.place = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.place, {}

    def step(self, action):
        self.place = max(0, min(3, self.place + (1 if action else -1)))
        return self.place, float(self.place == 3), self.place == 3, False, {}
'''


def texts(path: Path) -> None:
    path.write_text(JUDGE)


def words(path: Path) -> None:
    path.write_text("\n".join(WORDS) + "\n")


def prompts(path: Path) -> None:
    path.write_text("".join(json.dumps({"prompt": f"{a}{b}{c}"}) + "\n" for a in "abcd" for b in "abc" for c in "bcd"))


def few_prompts(path: Path) -> None:
    path.write_text("".join(f"{a}{b}{b}\n" for a in "abcd" for b in "abc"))


def log(seed: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        draw = random.Random(seed)
        rows = [
            {"prompt": f"{number:03}{draw.choice('abcd')}\n", "completion": draw.choice("abcd"), "reward": draw.random()}
            for number in range(seed * 100, seed * 100 + 40)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write


def replies(path: Path) -> None:
    path.write_text("".join(f"the sea {i} ? __eou__ no {i} . __eou__\n" for i in range(80)))


def lines(path: Path) -> None:
    path.write_text("".join(json.dumps({"de": f"ein {i}", "en": f"a {i}"}) + "\n" for i in range(40)))


def environment(path: Path) -> None:
    path.write_text(ENV)


def language_model(path: Path) -> None:
    from tests.helpers import pretrained

    pretrained.write(path, alphabet="abcdefghijklmnopqrstuvwxyz ?.\n")


@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes:
        words: its settings.
        files: setting -> (name of the file or folder, what writes it).
        longer: a setting that makes it longer.
        packages: that it needs.
        function: setting -> name behind the file of code.
        kept: settings whose files the checkpoint makes up for.
    """

    words: tuple[str, ...]
    files: dict[str, tuple[str, Callable[[Path], None]]]
    longer: str = "trainer.rollouts=3"
    packages: tuple[str, ...] = ()
    function: dict[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    def value(self, setting: str, path: Path | str) -> str:
        return f"{setting}={path}" + (f":{self.function[setting]}" if setting in self.function else "")


SHORT = ("evaluation.every=100", "trainer.log_every=1", "checkpoint.every=null")


def short(*groups: tuple[str, ...] | str, last: str = "trainer.rollouts=2") -> tuple[str, ...]:
    """Settings, the later ones instead of the earlier."""
    flat = [word for group in groups for word in ([group] if isinstance(group, str) else group)]
    found: dict[str, str] = {}
    for word in [*flat, *SHORT, last]:
        found.pop(word.split("=")[0], None)
        found[word.split("=")[0]] = word
    return tuple(found.values())


TEXT = short("data=text_file", "data.path=text.txt", ONLINE, SCREEN, TRANSFORMER)
FREE = ("env.transition=free", "env.prompt_length=3", "trainer.rollout_steps=5", "trainer.learning_starts=40")
OFF, DONE = "trainer.offline_rounds=2", "trainer.offline_rounds=3"
TALK = (
    "env=recorded_dialogue", "data=none", ONLINE, "network=gru", "network.layers=1", "network.context=80", "network.width=8",
    "head.loss=huber", "env.num_envs=4", "env.utterance_length=8", "env.partner.turn_length=12",
    "env.partner.heldout_fraction=0.4", "trainer.rollout_steps=60", "trainer.learning_starts=60", "buffer.capacity=4000",
)  # fmt: skip
PAIR_SIZES = (
    "data.tokenizer=character", "data.vocabulary_size=null", "env.num_envs=4", "env.samples_per_prompt=2", "env.horizon=8",
    "buffer.capacity=96", "pretraining.updates=2", "pretraining.batch_size=8", "trainer.batch_size=8", "network.context=40",
    "reward=edit_distance",
)  # fmt: skip
TEXT_FILE = {"data.path": ("text.txt", data_files._text)}
KINDS: dict[str, Kind] = {
    "text": Kind(TEXT, TEXT_FILE),
    "text and a judge of one's own": Kind(
        short(TEXT, FREE, "reward=function", "reward.path=judge.py:score", "head.loss=huber"),
        TEXT_FILE | {"reward.path": ("judge.py", texts)}, function={"reward.path": "score"},
    ),
    "a part of a mixture": Kind(
        short(TEXT, FREE, "reward=mixture", "head.loss=huber",
              "+reward.parts={own: {_target_: dqnlm.rewards.function.FunctionReward, path: 'judge.py:score', per_token: false, "
              "low: 0, high: 1, scale: 1, clip: null, increments: false, weight: 1}}"),
        TEXT_FILE | {"reward.parts.own.path": ("judge.py", texts)}, function={"reward.parts.own.path": "score"},
    ),
    "a model as judge": Kind(
        short(TEXT, FREE, "reward=causal_model", "reward.name_or_path=judge", "reward.max_tokens=12", "head.loss=huber"),
        TEXT_FILE | {"reward.name_or_path": ("judge", language_model)}, packages=("transformers", "tokenizers"),
    ),
    "a tokenizer's folder": Kind(
        short(TEXT, "data.tokenizer=tokens"), TEXT_FILE | {"data.tokenizer": ("tokens", language_model)},
        packages=("transformers", "tokenizers"), kept=("data.tokenizer",),
    ),
    "prompts": Kind(
        short(tuple(PROMPTS), tuple(OWN_NETWORK), "data.path=prompts.jsonl", "data.heldout_path=held.txt",
              "data.test_path=test.txt", "reward.path=judge.py:score", "network.context=24"),
        {"data.path": ("prompts.jsonl", prompts), "data.heldout_path": ("held.txt", few_prompts),
         "data.test_path": ("test.txt", few_prompts), "reward.path": ("judge.py", texts)},
        function={"reward.path": "score"},
    ),
    "a log": Kind(
        short("+experiment=logged", LOGGED, TRANSFORMER, "data.heldout_path=held.jsonl", "data.test_path=test.jsonl",
              "reward=function", "reward.path=judge.py:score", last=OFF),
        {"data.path": ("log.jsonl", log(1)), "data.heldout_path": ("held.jsonl", log(2)),
         "data.test_path": ("test.jsonl", log(3)), "reward.path": ("judge.py", texts)},
        longer=DONE, function={"reward.path": "score"},
    ),
    "a pretrained model": Kind(
        short("+experiment=logged_pretrained", LOGGED, MODEL, last=OFF),
        {"data.path": ("log.jsonl", data_files._log), "network.name_or_path": ("model", data_files._model)},
        longer=DONE, packages=("transformers", "tokenizers"), kept=("network.name_or_path",),
    ),
    "an adapted model": Kind(
        short("+experiment=logged_pretrained", LOGGED, MODEL, "network.lora_rank=2", "network.q_init=logits",
              "network.q_temperature=1.0", last=OFF),
        {"data.path": ("log.jsonl", data_files._log), "network.name_or_path": ("model", data_files._model)},
        longer=DONE, packages=("transformers", "tokenizers", "peft"),
    ),
    "parallel files": Kind(short(PAIRS), {"data.path": ("pairs", data_files._pairs)}),
    "parallel lines": Kind(
        short("+experiment=translation", "data=translation_jsonl", "data.path=lines.jsonl", "data.source=de", "data.target=en",
              LASTING, TRANSFORMER, PAIR_SIZES),
        {"data.path": ("lines.jsonl", lines)},
    ),
    "replies": Kind(
        short("+experiment=dialogue", "data.path=replies.txt", LASTING, TRANSFORMER, PAIR_SIZES, "data.max_tokens=16"),
        {"data.path": ("replies.txt", replies)},
    ),
    "a word list": Kind(
        short("env=dialogue", "env.partner.words=words.txt", "data=none", "head.loss=huber", "env.num_envs=4", "network=gru",
              "network.width=8", "network.layers=1", "network.context=66", ONLINE, "trainer.rollout_steps=80",
              "trainer.learning_starts=280"),
        {"env.partner.words": ("words.txt", words)},
    ),
    "a word list, played and logged": Kind(
        short("+experiment=wordle", OFFLINE, "network.layers=1", "network.width=16", "network.heads=2", "data.games=30",
              "data.words=words.txt", "env.partner.words=words.txt", "env.num_envs=4", "buffer.capacity=3000", last=OFF),
        {"env.partner.words": ("words.txt", words), "data.words": ("words.txt", words)}, longer=DONE,
    ),
    "recorded dialogues": Kind(
        short(*TALK, "env.partner.path=talk.txt"), {"env.partner.path": ("talk.txt", data_files._talk)}, packages=("sacrebleu",)
    ),
    "an environment of one's own": Kind(
        short("env=gymnasium", "env.path=corridor.py:Corridor", "env.max_episode_steps=9", "data=none", "reward=none",
              "gamma=0.9", ONLINE, "network=window_mlp", "network.width=8", "network.hidden=8", "head.loss=huber",
              "buffer.capacity=400", "trainer.learning_starts=20", "trainer.rollout_steps=9", "env.num_envs=2",
              "network.context=4"),
        {"env.path": ("corridor.py", environment)}, packages=("gymnasium",), function={"env.path": "Corridor"},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    permissions.forget_permissions()
    yield
    permissions.forget_permissions()


def dqnlm(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """One command, as if in a process of its own; (code, what it said)."""
    permissions.forget_permissions()
    user_code._run.cache_clear()
    capfd.readouterr()
    code = cli.main(list(argv))
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err, out + err
    return code, " ".join((out + err).split())


def trained(kind: Kind, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Path:
    """A run by the command, from a folder with its files, which it names relative to it."""
    for package in kind.packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    folder.mkdir(parents=True)
    for name, write in kind.files.values():
        if not (folder / name).exists():
            write(folder / name)
    monkeypatch.chdir(folder)
    code, said = dqnlm(capfd, "train", *kind.words)
    assert code == 0, said
    (run,) = (folder / "outputs").glob("*/*")
    return run


@pytest.mark.parametrize("name", KINDS)
def test_all_files_of_a_run_are_named_anew(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: a run is lost with the place of a file: refused as another run, looked for elsewhere, or not said which to name."""
    kind = KINDS[name]
    run = trained(kind, tmp_path / "project", monkeypatch, capfd)
    saved = yaml.safe_load((run / "config.yaml").read_text())
    elsewhere, other = tmp_path / "elsewhere", tmp_path / "other"
    elsewhere.mkdir()
    other.mkdir()
    monkeypatch.chdir(other)  # every setting that is a path is absolute: the files are found from here
    code, said = dqnlm(capfd, "resume", str(run), kind.longer, *allowing(kind, tmp_path / "project"))
    assert code == 0, said
    for file, _ in set(kind.files.values()):
        (tmp_path / "project" / file).rename(elsewhere / file)
    missing = [setting for setting in kind.files if setting not in kind.kept]
    before = (run / "config.yaml").read_bytes()
    more = kind.longer[:-1] + "4"
    if missing:
        for argv in (["resume", str(run), more], ["eval", str(run)]):
            code, said = dqnlm(capfd, *argv)
            assert code == 2 and all(setting in said for setting in missing), said
    named = [kind.value(setting, Path("..") / "elsewhere" / file) for setting, (file, _) in kind.files.items()]
    needed = [word for word in named if word.split("=")[0] in missing]
    assert (run / "config.yaml").read_bytes() == before
    code, said = dqnlm(capfd, "eval", str(run), *needed)
    assert code == 0, said
    code, said = dqnlm(capfd, "resume", str(run), more, *needed)
    assert code == 0, said
    now = yaml.safe_load((run / "config.yaml").read_text())
    monkeypatch.chdir(tmp_path)  # the new places are absolute too, and kept
    assert dqnlm(capfd, "eval", str(run), *allowing(kind, elsewhere))[0] == 0
    for setting in missing:
        old = at(saved, setting)
        assert old.startswith(str(tmp_path / "project"))
        assert os.path.normpath(at(now, setting)) == old.replace(str(tmp_path / "project"), str(elsewhere)), setting


@pytest.mark.parametrize("name", KINDS)
def test_another_file_in_its_place_is_refused_with_both_checksums(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: a run goes on, or is scored, with other data, words, partner, judge or model than it learned from."""
    kind = KINDS[name]
    run = trained(kind, tmp_path / "project", monkeypatch, capfd)
    before = {path: path.read_bytes() for path in (run / "config.yaml", run / "manifest.json")}
    allowed = allowing(kind, tmp_path / "project")
    for setting, (file, _) in kind.files.items():
        if setting in kind.kept and setting != "data.tokenizer":
            continue  # what the checkpoint holds is not read from there
        if name == "a log" and setting == "reward.path":
            continue  # it only scores, and may change
        changed = tmp_path / "changed" / file
        changed.parent.mkdir(exist_ok=True)
        alter(tmp_path / "project" / file, changed)
        named = [kind.value(key, changed) for key, (its, _) in kind.files.items() if its == file]
        for argv in (["resume", str(run), kind.longer], ["eval", str(run)]):
            code, said = dqnlm(capfd, *argv, *named, *allowed)
            assert code == 2 and said.count("...") >= 2, (argv, named, said)
            assert "sha256" in said or "fingerprint" in said, said
    assert {path: path.read_bytes() for path in before} == before


def test_a_moved_project_is_told_where_its_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: whoever moves a project as a whole has to find out what each setting is called and where each file lies."""
    kind = KINDS["text and a judge of one's own"]
    trained(kind, tmp_path / "project", monkeypatch, capfd)
    monkeypatch.chdir(tmp_path)
    moved = (tmp_path / "project").rename(tmp_path / "archive")
    (run,) = (moved / "outputs").glob("*/*")
    code, said = dqnlm(capfd, "resume", str(run), "trainer.rollouts=3")
    assert code == 2 and "2 files are not where they were" in said
    command = said.partition("run notes: ")[2].split()
    assert command == ["dqnlm", "resume", str(run), f"data.path={moved}/text.txt", f"reward.path={moved}/judge.py:score"]
    code, said = dqnlm(capfd, *command[1:], "trainer.rollouts=3")
    assert code == 0, said


def test_only_places_are_named_where_a_run_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: `dqnlm eval RUN env.horizon=3` scores another task; a setting with a wrong name is taken in silence."""
    run = trained(KINDS["text"], tmp_path / "project", monkeypatch, capfd)
    for word, message in [
        ("env.horizon=3", "env.horizon is no place of a file"), ("data.tokenizer=byte", "data.tokenizer is no place"),
        ("data.pth=x", "data.path"), ("words", "key=value"), ("data.path=nowhere.txt", "nowhere.txt"),
        ("reward.path=x.py:score", "reward.path"),
    ]:  # fmt: skip
        for command in (["eval", str(run)], ["resume", str(run)]):
            if command[0] == "eval" or word not in ("env.horizon=3", "data.tokenizer=byte"):
                code, said = dqnlm(capfd, *command, word)
                assert code == 2 and message in said, said
    for command in ("generate", "chat", "inspect"):
        text = ["--text", "the sea"] if command == "inspect" else []
        code, said = dqnlm(capfd, command, str(run), *text, "env.horizon=3")
        assert code == 2 and "places of this run: data.path" in said, said
    code, said = dqnlm(capfd, "resume", str(run), "data.tokenizer=byte", "trainer.rollouts=3")
    assert code == 2 and "data cannot change on a resume" in said


def test_another_function_of_the_same_file_is_another_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: `reward.path=judge.py:other` passes for the same file elsewhere."""
    run = trained(KINDS["text and a judge of one's own"], tmp_path / "project", monkeypatch, capfd)
    code, said = dqnlm(capfd, "resume", str(run), "trainer.rollouts=3", "reward.path=judge.py:other")
    assert code == 2 and "reward cannot change on a resume" in said
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["places"], manifest["own_code"]  # as of an earlier version, or damaged
    (run / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy("judge.py", "copy.py")
    code, said = dqnlm(capfd, "resume", str(run), "trainer.rollouts=3", "reward.path=copy.py:score")
    assert code == 2 and "does not note what its file held" in said


def test_a_sweep_goes_on_where_its_project_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: a job that was stopped is called another run, since the same words name another folder now."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    tools.write_text(Path("text.txt"))
    words = ["train", *KINDS["text"].words, "-m", "seed=0,1", "checkpoint.every=1", "hydra.sweep.dir=sweep"]
    code, said = dqnlm(capfd, *words)
    assert code == 0, said
    (tmp_path / "project").rename(tmp_path / "archive")
    monkeypatch.chdir(tmp_path / "archive")
    first = next(Path("sweep").glob("0-*"))
    (first / "summary.json").unlink()  # as if it had been stopped before its end
    code, said = dqnlm(capfd, *words)
    assert code == 0 and "resumed" in said and "finished before" in said, said
    assert yaml.safe_load((first / "config.yaml").read_text())["data"]["path"] == str(tmp_path / "archive" / "text.txt")


def allowing(kind: Kind, folder: Path) -> list[str]:
    files = [str(folder / kind.files[setting][0]) for setting in kind.function]
    return [f"+allow_targets=[{','.join(files)}]"] if files else []


def at(config: dict[str, object], setting: str) -> str:
    node: object = config
    for part in setting.split("."):
        assert isinstance(node, dict)
        node = node[part]
    return str(node)


def alter(path: Path, target: Path) -> None:
    """A copy that holds something else of the same form: a line is gone, a letter or a byte of the weights is another."""
    if not path.is_dir():
        found = path.read_text().splitlines(keepends=True)
        target.write_text("".join(found[1:]) if path.suffix != ".py" else path.read_text() + "# mended\n")
        return
    shutil.copytree(path, target)
    tokenizer = target / "tokenizer.json"
    if target.name == "tokens":  # of a model that is no network, so that the tokenizer is all that is read
        tokenizer.write_text(tokenizer.read_text().replace('"z": ', '"Z": '))
    for file in target.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    for file in target.glob("train.*"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
