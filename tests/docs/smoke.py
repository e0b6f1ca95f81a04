"""Settings that make a documented training command a matter of a second, by experiment."""

from __future__ import annotations

import re

COMMON = {
    "device": "cpu", "threads": "1", "logger": "none", "progress": "false", "checkpoint.minutes": "null",
    "checkpoint.every": "null", "evaluation.every": "1000", "trainer.log_every": "2", "evaluation.samples": "1",
    "evaluation.sample_tokens": "8", "evaluation.episodes": "2", "trainer.batch_size": "4",
}  # fmt: skip
ONLINE = {"trainer.rollouts": "3"}
OFFLINE = {"trainer.offline_rounds": "3"}
SMALL_TEXT = {"env.num_envs": "4", "env.horizon": "8", "buffer.capacity": "256", "optimizer.warmup_updates": "2"}
TRANSFORMER = {"network.layers": "1", "network.width": "16", "network.heads": "2", "network.context": "16"}
GENERATED = {"data.bundled_characters": "20000"}  # the documented text is not there, and the generated one is long
TEXT = COMMON | ONLINE | SMALL_TEXT | TRANSFORMER | GENERATED
WALKS = COMMON | OFFLINE | {"network.hidden": "16", "network.width": "8", "buffer.capacity": "9000"}
PAIRS = COMMON | ONLINE | {
    "network.layers": "1", "network.width": "16", "network.heads": "2", "data.vocabulary_size": "270",
    "pretraining.updates": "2", "pretraining.batch_size": "8", "env.num_envs": "8", "env.samples_per_prompt": "2",
    "env.horizon": "8", "buffer.capacity": "256", "trainer.batch_size": "8",
}  # fmt: skip
WINDOW = {"network.hidden": "16", "network.width": "8"}
EXPERIMENTS: dict[str | None, dict[str, str]] = {
    None: TEXT,
    "shakespeare": TEXT | {"trainer.learning_starts": "0"},
    "shakespeare_behaviour_cloning": TEXT,
    "shakespeare_fluency": TEXT
    | {"env.prompt_length": "3", "pretraining.updates": "2", "pretraining.batch_size": "4"},
    "shakespeare_full_feedback": TEXT,
    "shakespeare_classic": COMMON | GENERATED | {"trainer.rollouts": "40", "trainer.learning_starts": "20"},
    "translation": PAIRS,
    "dialogue": PAIRS,
    "maze": COMMON | OFFLINE | WINDOW | {"data.episodes": "10", "env.max_steps": "4"},
    "random_walks": WALKS,
    "random_walks_large": WALKS | {"env.nodes": "30", "env.max_nodes": "10", "data.walks": "200", "network.context": "9"},
    "random_walks_online": COMMON | ONLINE | WINDOW,
    "logged": COMMON | OFFLINE | {"network.layers": "1", "network.width": "16", "network.heads": "2"},
    "logged_pretrained": COMMON | OFFLINE,
    "dial": COMMON | OFFLINE | {"network.layers": "1", "network.width": "16", "network.heads": "2"},
    "prompts": COMMON
    | ONLINE
    | {"env.num_envs": "8", "env.samples_per_prompt": "4", "env.horizon": "8", "trainer.batch_size": "8"},
    "wordle": COMMON
    | OFFLINE
    | {"network.layers": "1", "network.width": "16", "network.heads": "2", "data.games": "30", "data.words": "bundled",
       "env.partner.words": "bundled", "env.num_envs": "4", "buffer.capacity": "3000"},
    "cartpole": COMMON
    | {"trainer.rollouts": "40", "env.num_envs": "4", "trainer.learning_starts": "120", "network.hidden": "16",
       "env.max_episode_steps": "30", "trainer.updates_per_rollout": "1"},
}  # fmt: skip
ENVIRONMENTS = {  # chosen by themselves, without an experiment
    "random_walks": COMMON | OFFLINE | TRANSFORMER,
    "quiz": COMMON | ONLINE | WINDOW,
    "recorded_dialogue": COMMON
    | {"trainer.rollouts": "1", "network.layers": "1", "network.width": "16", "network.heads": "2", "env.num_envs": "4"},
}  # fmt: skip
OF_OTHER_NETWORKS = {"averages": {"network.layers", "network.heads"}, "gru": {"network.heads"}}
OF_OTHER_DATA = set(GENERATED)


def key(word: str) -> str:
    return word.lstrip("+").split("=", 1)[0]


def smaller(typed: str, small: str) -> str:
    """Of two numbers the smaller; of anything else the second."""
    return typed if typed.isdigit() and small.isdigit() and int(typed) < int(small) else small


def longer(typed: list[str]) -> list[str]:
    """The arguments of `dqnlm resume` that extend a run, for one of a few rollouts."""
    return [re.sub(r"^(trainer\.rollouts)=\d+$", r"\1=5", word) for word in typed]


def settings(typed: list[str]) -> list[str]:
    """The arguments of `dqnlm train` as typed, with smaller numbers where these make it long.

    Raises:
        KeyError: nobody has said yet how the experiment is made small.
    """
    given = {key(word): word.split("=", 1)[1] for word in typed if "=" in word and not word.startswith("-")}
    small = dict(EXPERIMENTS[given.get("experiment")])
    small = ENVIRONMENTS.get(given.get("env", ""), small)
    for name in OF_OTHER_NETWORKS.get(given.get("network", ""), ()):
        small.pop(name, None)
    if "data" in given:
        small = {name: value for name, value in small.items() if name not in OF_OTHER_DATA}
    small = {name: smaller(given.get(name, ""), value) for name, value in small.items()}
    return [word for word in typed if key(word) not in small] + [f"{name}={value}" for name, value in small.items()]
