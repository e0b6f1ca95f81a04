"""One function for each part of a run: configuration in, object out. The builder puts them together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dqnlm import checkpoint
from dqnlm.checks import pays_only_the_match
from dqnlm.config import instantiate
from dqnlm.data.corpora import Corpus
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.evaluator import Evaluator
from dqnlm.heads.base import Head
from dqnlm.networks.base import Body, QNetwork, TokenEncoder
from dqnlm.objectives.base import Objective
from dqnlm.policy import Policy
from dqnlm.rewards.base import Reward
from dqnlm.run_directory import RunDirectory, find_run

Config = dict[str, Any]

# Independent random streams of one run: seed * 1000 + the stream's number.
STREAM_ENV, STREAM_EXPLORATION, STREAM_BUFFER, STREAM_EVALUATION = 1, 2, 3, 4


def stream(device: torch.device, seed: int, number: int) -> torch.Generator:
    """A random generator of its own for one use."""
    return torch.Generator(device).manual_seed(seed * 1000 + number)


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1`.

    Raises:
        UserError: not a device, or none such here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device={name} cannot be used here ({str(error).splitlines()[0]}); use device=auto or device=cpu"
        ) from None
    return device


def build_corpus(config: Config, bundled_allowed: bool = True) -> Corpus:
    """Text, tokenizer and split. A run on real text is never continued on the bundled one."""
    node = dict(config["data"])
    if not bundled_allowed and "bundled_fallback" in node:
        node["bundled_fallback"] = False
    corpus: Corpus = instantiate(node)
    return corpus


def build_env(
    config: Config, corpus: Corpus, ids: Tensor, device: torch.device, seed: int, num_envs: int | None = None
) -> Environment:
    """An environment on `ids`."""
    node = config["env"] if num_envs is None else config["env"] | {"num_envs": num_envs, "copies": 1}
    size = corpus.tokenizer.vocabulary_size
    reward = build_reward(config["reward"], size)
    stop = node["stop_token"]
    stop_id = None if stop is None else _one_token(corpus, stop)
    env: Environment = instantiate(node, ids, reward, size, legal_tokens(config, corpus), stop_id, device, seed)
    return env


def build_reward(node: Config, num_actions: int) -> Reward:
    """A reward; a mixture's parts likewise."""
    if node["_target_"].endswith(".Mixture"):
        mixture: Reward = instantiate(node, num_actions, lambda part: build_reward(part, num_actions))
        return mixture
    reward: Reward = instantiate(node, num_actions)
    return reward


def _one_token(corpus: Corpus, text: str) -> int:
    ids = corpus.tokenizer.encode_strict(text)
    if len(ids) != 1:
        raise UserError(f"env.stop_token={text!r} must be one token, but it is {len(ids)}")
    return int(ids[0])


def legal_tokens(config: Config, corpus: Corpus) -> Tensor | None:
    """legal_A: what the agent may choose; None for everything. The unknown token never."""
    tokenizer, allowed = corpus.tokenizer, config["env"]["allowed"]
    if allowed is None and tokenizer.unknown_id is None:
        return None
    if allowed is None:
        legal_A = torch.ones(tokenizer.vocabulary_size, dtype=torch.bool)
    else:
        legal_A = torch.zeros(tokenizer.vocabulary_size, dtype=torch.bool)
        legal_A[tokenizer.encode_strict(allowed).long()] = True
    if tokenizer.unknown_id is not None:
        legal_A[tokenizer.unknown_id] = False
    return legal_A


def build_network(config: Config, vocabulary_size: int, num_parameters: int) -> QNetwork:
    """Encoder, body and the output `q`."""
    body: Body = instantiate(config["network"])
    encoder = TokenEncoder(vocabulary_size, body.width, body.embedding_std)
    return QNetwork(
        encoder, body, {"q": instantiate(config["projection"], body.features, vocabulary_size, num_parameters)}
    )


def build_policy_parts(config: Config, corpus: Corpus, env: Environment, device: torch.device) -> Policy:
    """Network and head, with fresh weights."""
    gamma = config["learner"]["gamma"]
    bounds = env.return_bounds(gamma)
    # Q is the probability of being the rewarded action where no later reward is added to that of the match.
    match = pays_only_the_match(config["reward"]) and tuple(bounds) == (0.0, 1.0)
    head: Head = instantiate(config["head"], bounds, match)
    network = build_network(config, env.num_actions, head.num_parameters)
    legal_A = legal_tokens(config, corpus)
    legal_A = None if legal_A is None else legal_A.to(device)
    return Policy(
        network.to(device), head.to(device), corpus.tokenizer, legal_A, config["trainer"]["declared_policy"], 1.0
    )


def build_objectives(config: Config, env: Environment, head: Head) -> dict[str, Objective]:
    """The objectives of a run; those that learn from rewards get what they need of the environment."""
    reward_all: Callable[[Tensor], Tensor] | None = None
    if config["learner"]["feedback"] == "all_actions":
        reward_all = lambda observation_BS: env.reward.all_actions(observation_BS[:, 1:])  # type: ignore[attr-defined]  # noqa: E731
    # A window around a single decision ends with it: the observation after it has a value unless the episode ended.
    last_has_value = config["env"]["horizon_end"] == "truncate" or config["buffer"].get("sample") == "transitions"
    result: dict[str, Objective] = {}
    for name, node in config["objective"].items():
        if name == "td":
            supplied = (head, env.legal, reward_all, config["learner"]["gamma"] > 0, last_has_value, False)
            result[name] = instantiate(node, *supplied)
        else:
            result[name] = instantiate(node)
    return result


def build_evaluator(config: Config, corpus: Corpus, device: torch.device) -> Evaluator:
    """Scores on the held-out part; the same episodes at every evaluation."""
    settings, seed = config["trainer"], config["seed"] * 1000 + STREAM_EVALUATION
    frequency_A = torch.bincount(corpus.train_ids.long(), minlength=corpus.tokenizer.vocabulary_size)
    legal_A = legal_tokens(config, corpus)
    if legal_A is not None:
        frequency_A[~legal_A] = -1
    frequent = [i for i in frequency_A.argsort(descending=True).tolist() if frequency_A[i] >= 0]

    def make_env() -> Environment:
        return build_env(config, corpus, corpus.heldout_ids, device, seed, settings["evaluation_episodes"])

    return Evaluator(
        corpus.heldout_ids, make_env, frequent, settings["samples"], settings["sample_tokens"],
        settings["sample_temperature"], seed,
    )  # fmt: skip


def load_weights(policy: Policy, config: Config) -> None:
    """Starts from the weights of another run (trainer.init_from); the rest of that run is not taken.

    Raises:
        UserError: the networks or the vocabularies differ.
    """
    source = find_run(config["trainer"]["init_from"], config["output_dir"])
    path = checkpoint.find(RunDirectory(source).checkpoints, "best")
    state = checkpoint.load(path, "policy", policy.device)
    if state["tokenizer"] != policy.tokenizer.state():
        raise UserError(
            f"trainer.init_from={source}: that run has another vocabulary than this text; train on the same text"
        )
    try:
        policy.network.load_state_dict(state["network"])
    except RuntimeError as error:
        raise UserError(
            f"trainer.init_from={source}: the networks differ ({str(error).splitlines()[-1].strip()}); use the same "
            "network=, projection= and head= settings as that run's config.yaml"
        ) from None
