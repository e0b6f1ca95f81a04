"""What a run learns from and where it plays: data, rewards and environment, from the configuration."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from dqnlm.builder.logged_rows import shape_of
from dqnlm.config.schema import assemble, instantiate, resolve_target
from dqnlm.config.selected import option_name
from dqnlm.data.kinds import Data, OnText
from dqnlm.data.pairs.dataset import Pairs
from dqnlm.data.pairs.files import read_dialogues
from dqnlm.data.text.corpora import Corpus
from dqnlm.data.tokenizers import base
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.trajectories.log import Log
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.rewards.base import Reward

Config = dict[str, Any]


def build_data(config: Config, bundled_allowed: bool = True) -> Data:
    """What the run learns from. A run on real text is never continued on the bundled one."""
    node = dict(config["data"])
    if not bundled_allowed and "bundled_fallback" in node:
        node["bundled_fallback"] = False
    data: Data = instantiate(node)
    return data


def build_env(
    config: Config,
    data: Data,
    device: torch.device,
    seed: int,
    *,
    evaluating: bool = False,
    num_envs: int | None = None,
) -> Environment:
    """The environment; for an evaluation with so many copies, on the held-out part of a text.

    Raises:
        UserError: it plays on a text and there is none, or it does not and there is one.
    """
    node = config["env"] | ({} if num_envs is None else {"num_envs": num_envs})
    if num_envs is not None and "copies" in node:
        node["copies"] = 1
    pool: dict[str, Any] = {"device": device, "seed": seed, "evaluating": evaluating}
    hosts = pool | {"dialogues": node.get("num_envs"), "read_dialogues": read_dialogues}
    pool["make_partner"] = lambda part: assemble(part, hosts, "env.partner")
    wanted = inspect.signature(resolve_target(node["_target_"])).parameters
    if ("log_shape" in wanted) != isinstance(data, Log):
        raise UserError(_wrong_log(config, isinstance(data, Log)))
    if ("corpus_ids" in wanted, "prompts" in wanted) != (isinstance(data, Corpus), isinstance(data, Pairs)):
        raise UserError(_wrong_data(config, "corpus_ids" in wanted, "prompts" in wanted, isinstance(data, Pairs)))
    if isinstance(data, OnText):
        pool |= {
            "num_actions": data.tokenizer.vocabulary_size, "legal_mask_A": legal_tokens(config, data),
            "tokenizer": data.tokenizer, "train_ids": data.train_ids,
        }  # fmt: skip
    if isinstance(data, Log):
        pool["log_shape"] = shape_of(data)
    if isinstance(data, Corpus):
        stop = node["stop_token"]
        pool["corpus_ids"] = data.heldout_ids if evaluating else data.train_ids
        pool["stop_id"] = None if stop is None else _one_token(data, stop)
        pool["reward"] = _paying_reward(config, pool)
    elif isinstance(data, Pairs):
        part = data.heldout if evaluating else data.train
        pool |= {"prompts": part.prompts, "references": part.references, "stop_id": data.stop_id}
        pool["longest_prompt"] = data.longest_prompt
        pool["reward"] = _paying_reward(config, pool)
    env: Environment = assemble(node, pool, "env")
    return env


def _wrong_log(config: Config, is_log: bool) -> str:
    """The environment or the data is of a log alone, and the other is not."""
    env, data = (option_name(config, group) for group in ("env", "data"))
    if is_log:
        return f"data={data} is a log to learn from alone, and env={env} is a task of another kind; set env=logged"
    return (
        f"env={env} learns from a log alone, which data={data} does not give: set data=logged data.path=FILE.jsonl (+experiment="
        "logged sets both)"
    )


def _wrong_data(config: Config, on_text: bool, on_pairs: bool, on_answers: bool) -> str:
    """What the environment plays on, and what the data is instead."""
    name = option_name(config, "env")
    if on_text:
        return (
            f"env={name} plays on a text, but data={option_name(config, 'data')} is none; set data=tiny_shakespeare, "
            "data=text_file data.path=FILE, or data=bundled"
        )
    if on_pairs:
        return (
            f"env={name} answers prompts, but data={option_name(config, 'data')} holds none; set data=translation, data=replies "
            "or data=translation_jsonl with data.path, or data=translation_hub with data.name"
        )
    if on_answers:
        return f"data={option_name(config, 'data')} is prompts with answers, which env={name} does not read; set env=translation"
    return (
        f"env={name} brings its own tasks, and a text (data={option_name(config, 'data')}) would be read by nothing; set "
        "data=none, or data=trajectories data.path=FILE to learn from logged episodes"
    )


def build_reward(node: Config, pool: dict[str, Any]) -> Reward:
    """A reward with what it asks for by name: num_actions, tokenizer, stop_id, train_ids; a mixture's parts likewise.

    Raises:
        UserError: it asks for something that this run has not, or refuses a setting.
    """
    pool = pool | {"build_part": lambda part: build_reward(part, pool)}
    reward: Reward = assemble(node, pool, "reward")
    return reward


def _paying_reward(config: Config, pool: dict[str, Any]) -> Reward:
    """The reward of a task that has no other.

    Raises:
        UserError: it pays nothing, or as in `build_reward`.
    """
    reward = build_reward(config["reward"], pool)
    if reward.pays_nothing:
        raise UserError(
            f"reward={option_name(config, 'reward')}: env={option_name(config, 'env')} has no other rewards to learn from; "
            "choose one (env=logged has a log's)"
        )
    return reward


def _one_token(corpus: Corpus, text: str) -> int:
    ids = corpus.tokenizer.encode_strict(text)
    if len(ids) != 1:
        raise UserError(f"env.stop_token={text!r} must be one token, but it is {len(ids)}")
    return int(ids[0])


def legal_tokens(config: Config, data: Data) -> Tensor | None:
    """legal_A: what the agent may write at any time; None for everything. The unknown token never."""
    if not isinstance(data, OnText):
        return None
    tokenizer, allowed = data.tokenizer, config["env"].get("allowed")
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


def tokenizer_of(data: Data, env: Environment) -> Tokenizer | None:
    """The text's, or one character a token of the environment's alphabet; None where observations are no characters."""
    if isinstance(data, OnText):
        return data.tokenizer
    if env.alphabet is None:
        return None
    tokenizer = base.CharacterTokenizer(env.alphabet)
    assert tokenizer.characters == env.alphabet, "an alphabet is sorted by code point, so that ids are places in it"
    return tokenizer
