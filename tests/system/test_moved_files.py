"""Where the files of a run lie is not what they are: each kind of run goes on, and is scored, when all its files have moved.

A kind of run is its settings and its files. All are moved at once, so that one message has to name each of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dqnlm import cli
from dqnlm.utils import permissions, user_code
from tests.helpers import runs as tools
from tests.helpers.runs_with_files import KINDS, Kind
from tests.helpers.slow import mostly_slow


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


@pytest.mark.parametrize("name", mostly_slow(KINDS, 4))
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


@pytest.mark.parametrize("name", mostly_slow(KINDS, 4))
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
