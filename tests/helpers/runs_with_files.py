"""Kinds of runs that read files: their settings, and what writes the files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.golden import data_files
from tests.golden.runs import LASTING, LOGGED, MODEL, OFFLINE, ONLINE, PAIRS, SCREEN, TRANSFORMER
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
