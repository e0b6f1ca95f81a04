"""Which settings are paths, told by annotations: they are kept whole, and naming code permits it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from dqnlm.config import catalogue, coerce, composition, validation
from dqnlm.config.paths import anchored, moved, path_kind, permit_code, places, with_values
from dqnlm.config.schema import instantiate, keyword_parameters, resolve_target
from dqnlm.errors import UserError
from dqnlm.utils import permissions
from dqnlm.utils.paths import CodePath, FilePath, PathOrName


@pytest.fixture(autouse=True)
def _no_permissions() -> Iterator[None]:
    permissions.forget_permissions()
    yield
    permissions.forget_permissions()


def targets(node: Any) -> Iterator[str]:
    """All targets in a node and below it."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for part in node.values():
            yield from targets(part)


def every_target() -> list[str]:
    found: set[str] = set()
    for group in set(catalogue.groups()) - set(catalogue.PRESETS):
        for option, _ in catalogue.options(group):
            path = catalogue.option_file(group, option)
            assert path is not None
            found |= set(targets(yaml.safe_load(path.read_text(encoding="utf-8"))))
    return sorted(found)


# Settings that are texts and no paths, by name: what they are. A new setting that is a text stands here, or is annotated.
TEXTS = {
    "allowed": "characters", "best_metric": "a metric", "config": "a name on the Hub", "device": "a device",
    "heldout": "a file's or split's name", "id": "a name that Gymnasium knows", "label": "of a classifier",
    "revision": "of a repository", "source": "a language", "split": "of a data set", "stop_token": "characters",
    "target": "a language", "test": "a file's or split's name", "text_column": "of a data set",
    "train": "a file's or split's name",
    "lora_targets": "layers", "parts": "nodes, which have their own annotations", "partner": "a node, likewise",
    "arguments": "of a constructor of the user's", "ratings": "words and numbers", "rewards": "columns",
    "reward_weights": "columns and numbers", "weights": "rewards and numbers", "project": "of a tracker", "space": "of a tracker",
    "entity": "of a tracker",
}  # fmt: skip
PATH_NAMES = {"path", "heldout_path", "test_path", "name", "name_or_path", "tokenizer", "words", "init_from"}


def text_settings() -> Iterator[tuple[str, str, Any]]:
    """(target, setting, annotation) of all settings of all options whose value may be a text that is not one of a few."""
    for target in every_target():
        for name, (annotation, _) in keyword_parameters(resolve_target(target)).items():
            if "str" in str(annotation).replace("_str", "") or "Any" in str(annotation) or may_be_path(annotation):
                yield target, name, annotation


def may_be_path(annotation: Any) -> bool:
    return path_kind("a value that is no choice", annotation) is not None


def test_every_setting_that_is_a_path_is_annotated_as_one() -> None:
    """Bug: a new option whose file is looked for in another folder when its run is resumed from there.

    Every text among the settings of all options is a path by its annotation, or stands in the list of those that are none.
    """
    found = list(text_settings())
    undecided = [(target, name) for target, name, kind in found if not may_be_path(kind) and name not in TEXTS]
    assert not undecided, "say in TEXTS what they are, or annotate them by dqnlm.utils.paths"
    both = [(target, name) for target, name, kind in found if may_be_path(kind) and name in TEXTS]
    assert not both
    assert {name for _, name, kind in found if may_be_path(kind)} == PATH_NAMES
    assert {name for _, name, kind in found if not may_be_path(kind)} == set(TEXTS), "a text that is gone"
    assert {name for name, kind in validation.PLAIN.items() if may_be_path(kind)} == {"output_dir"}


@pytest.mark.slow
def test_every_path_of_every_option_is_made_whole(tmp_path: Path) -> None:
    """Bug: a path below a node, in a list of nodes or of an experiment that stays relative to where training was started."""
    seen = set()
    for group in sorted(set(catalogue.groups()) - {"debug"}):
        for option, _ in catalogue.options(group):
            plus = "+" if group in catalogue.ADDED else ""
            try:
                composed, _ = composition.compose([f"{plus}{group}={option}"])
            except UserError as error:  # an option that stands beside another, as experiments choose it
                assert "Interpolation key" in str(error), error
                continue
            for key, place in places(composed).items():
                typed = with_values(composed, {key: "some.py:name" if place_is_code(composed, key) else "some/place"})
                if place.kind is None and places(typed)[key].kind is None:
                    continue
                (tmp_path / "some").mkdir(exist_ok=True)
                (tmp_path / "some" / "place").touch()
                value = places(anchored(typed, tmp_path))[key].value
                assert value in (str(tmp_path / "some" / "place"), f"{tmp_path / 'some.py'}:name"), f"{group}={option}: {key}"
                seen.add(key)
    assert len(seen) >= 12, seen


def place_is_code(config: dict[str, Any], key: str) -> bool:
    return places(with_values(config, {key: "x"}))[key].kind is CodePath


def test_kinds() -> None:
    """Bug: the word `byte` taken for a folder of that name, or null for a path."""
    tokenizer = Literal["byte", "bpe"] | PathOrName | None
    assert path_kind("byte", tokenizer) is None and path_kind("models/mine", tokenizer) is PathOrName
    assert path_kind(None, FilePath | None) is None and path_kind("x", FilePath | None) is FilePath
    assert path_kind("x", CodePath) is CodePath and path_kind("x", str) is None and path_kind("x", Any) is None


def test_values_and_messages_are_those_of_texts() -> None:
    """Bug: a path named 2024 refused, or a message that speaks of NewType."""
    assert coerce.conform(2024, FilePath) == "2024" and coerce.conform(None, FilePath | None) is None
    with pytest.raises(coerce.MismatchError, match="is not a text or null"):
        coerce.conform(0.5, FilePath | None)


def whole(base: Path, *typed: str) -> dict[str, Any]:
    composed, choices = composition.compose(list(typed))
    return anchored(validation.validate(composed, choices, list(typed)), base)


def test_files_are_made_whole_and_names_only_where_they_are_files(tmp_path: Path) -> None:
    """Bug: the name of a model on the Hub made a folder that is not there; a folder that is there taken for such a name."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "byte").mkdir()
    config = whole(
        tmp_path, "data=logged", "data.path=log.jsonl", "data.heldout_path=/there/log.jsonl", "data.tokenizer=mine",
        "network=pretrained", "network.name_or_path=mine", "output_dir=runs", "pretraining.init_from=latest",
    )  # fmt: skip
    assert (
        config["data"]["path"] == str(tmp_path / "log.jsonl") and config["data"]["heldout_path"] == "/there/log.jsonl"
    )
    assert config["data"]["tokenizer"] == config["network"]["name_or_path"] == str(tmp_path / "mine")
    assert config["output_dir"] == str(tmp_path / "runs") and config["pretraining"]["init_from"] == "latest"
    config = whole(
        tmp_path, "data=logged", "data.name=owner/name", "data.tokenizer=byte", "network=pretrained",
        "network.name_or_path=owner/model", "pretraining.init_from=mine",
    )  # fmt: skip
    assert (config["data"]["name"], config["data"]["tokenizer"]) == ("owner/name", "byte")
    assert config["network"]["name_or_path"] == "owner/model" and config["data"]["path"] is None
    assert config["pretraining"]["init_from"] == str(tmp_path / "mine")


def test_nodes_within_nodes(tmp_path: Path) -> None:
    """Bug: the file of a partner, or of a part of a mixture, that stays relative; one that is not permitted."""
    (tmp_path / "words.txt").touch()
    config = whole(tmp_path, "env=dialogue", "env.partner.words=words.txt")
    assert config["env"]["partner"]["words"] == str(tmp_path / "words.txt")
    assert whole(tmp_path, "env=dialogue")["env"]["partner"]["words"] == "auto"
    assert whole(tmp_path, "env=recorded_dialogue", "env.partner.path=a.txt")["env"]["partner"]["path"] == str(
        tmp_path / "a.txt"
    )
    part = "_target_: dqnlm.rewards.function.FunctionReward, path: 'mine.py:score', per_token: false, low: 0, high: 1"
    part = f"{{{part}, scale: 1, clip: null, increments: false, weight: 1}}"
    typed = ["reward=mixture", f"+reward.parts={{mine: {part}}}"]
    config = whole(tmp_path, *typed)
    assert config["reward"]["parts"]["mine"]["path"] == f"{tmp_path / 'mine.py'}:score"
    assert not permissions.permitted(), "paths are made whole without a permission"
    permit_code(config)
    assert permissions.permitted() == {str(tmp_path / "mine.py")}


def test_a_configuration_is_left_as_it_is(tmp_path: Path) -> None:
    """Bug: a configuration that is compared with another is changed by it."""
    typed = ["data=text_file", "data.path=a.txt"]
    composed, choices = composition.compose(typed)
    config = validation.validate(composed, choices, typed)
    assert anchored(config, tmp_path)["data"]["path"] != config["data"]["path"] == "a.txt"


def test_mistakes_in_the_signature_of_a_users_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a traceback for a class of the user's without annotations, with unreadable ones, or with other arguments.

    An inherited signature is read with the names of the module where it is written.
    """
    (tmp_path / "their_parts.py").write_text(
        "from __future__ import annotations\nfrom dqnlm.envs.gymnasium_env import Gymnasium\n"
        "class Bare:\n    def __init__(self, *, size): ...\n"
        "class Unknown:\n    def __init__(self, *, size: Nothing): ...\n"
        "class Narrow:\n    def __init__(self, *, size: int): ...\n"
        "class Derived(Gymnasium): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    permissions.permit_targets("their_parts")
    for name, words in [
        ("Bare", "line 4): .* size has no annotation"),
        ("Unknown", "line 6): .* size, Nothing, cannot be"),
    ]:
        with pytest.raises(UserError, match=re.sub(r"\)", r"\\)", words)):
            keyword_parameters(resolve_target(f"their_parts.{name}"))
    with pytest.raises(
        UserError, match=r"line 8\): cannot be called .* 1 by position and size by name: too many positional"
    ):
        instantiate({"_target_": "their_parts.Narrow", "size": 3}, "device")
    found = keyword_parameters(resolve_target("their_parts.Derived"))
    own = list(inspect.signature(resolve_target("dqnlm.envs.gymnasium_env.Gymnasium")).parameters.values())
    assert list(found) == [p.name for p in own if p.kind is p.KEYWORD_ONLY]
    assert path_kind("x", found["path"][0]) is CodePath


def test_what_counts_as_moved(tmp_path: Path) -> None:
    """Bug: another tokenizer, or another function of the same file, that passes for a file that has moved."""
    typed = ["data=logged", "data.path=a.jsonl", "data.tokenizer=byte", "reward=function", "reward.path=j.py:score"]
    before = whole(tmp_path, *typed)

    def changes(**values: Any) -> list[str]:
        return sorted(moved(before, with_values(before, {key.replace("__", "."): value for key, value in values.items()})))

    assert changes(data__path="b.jsonl", data__test_path="t.jsonl") == ["data.path", "data.test_path"]
    assert changes(data__path=None, data__name="owner/name") == ["data.name", "data.path"]
    assert changes(data__tokenizer="character") == [] and changes(data__tokenizer="folder") == ["data.tokenizer"]
    assert changes(reward__path="k.py:score") == ["reward.path"] and changes(reward__path="j.py:other") == []
    assert changes(reward__path="k.py:other") == changes(reward__path=None) == changes() == []
    words = whole(tmp_path, "env=dialogue")
    assert sorted(moved(words, with_values(words, {"env.partner.words": "w.txt"}))) == ["env.partner.words"]
    assert not moved(words, with_values(words, {"env.partner.words": "bundled"}))
