"""Who scores a run: chosen by its data."""

from __future__ import annotations

from typing import Any

import torch

from dqnlm.builder.agent import STREAM_EVALUATION
from dqnlm.builder.q_semantics import Objectives, learns_returns, why_q_is_not_in_reward_units
from dqnlm.builder.task_assembly import build_env, build_reward, legal_tokens
from dqnlm.config.selected import option_name
from dqnlm.data.kinds import Data
from dqnlm.data.pairs.dataset import Pairs
from dqnlm.data.text.corpora import Corpus
from dqnlm.data.trajectories.log import Log
from dqnlm.envs.base import Environment
from dqnlm.envs.logged import Logged
from dqnlm.errors import UserError
from dqnlm.evaluation.answers import PairEvaluator
from dqnlm.evaluation.episodes import EpisodeEvaluator
from dqnlm.evaluation.logged import LogEvaluator
from dqnlm.evaluation.ngram_baselines import baselines
from dqnlm.evaluation.text import TextEvaluator
from dqnlm.rewards.base import Reward
from dqnlm.training.components import Evaluator

Config = dict[str, Any]


def build_evaluator(config: Config, data: Data, device: torch.device, objectives: Objectives) -> Evaluator:
    """Scores on the held-out part of a text, or on episodes alone; the same episodes at every evaluation.

    The run's `objectives` tell whether Q is a return that can be compared with what came.
    """
    settings, seed = config["trainer"], config["seed"] * 1000 + STREAM_EVALUATION
    if isinstance(data, Log):
        return _of_log(config, data, device, objectives)
    episodes = settings["evaluation_episodes"]
    if isinstance(data, Pairs):  # each pair once
        episodes = min(episodes, len(data.heldout.texts))

    def make_env() -> Environment:
        return build_env(config, data, device, seed, evaluating=True, num_envs=episodes)

    gamma = config["learner"]["gamma"]
    q_is_return = why_q_is_not_in_reward_units(config, objectives) is None
    if isinstance(data, Pairs):
        texts = [pair.answer for pair in data.heldout.texts]
        return PairEvaluator(make_env, gamma, settings["betas"], settings["samples"], q_is_return, texts)
    if not isinstance(data, Corpus):
        return EpisodeEvaluator(make_env, gamma, settings["betas"], settings["samples"], q_is_return)
    frequency_A = torch.bincount(data.train_ids.long(), minlength=data.tokenizer.vocabulary_size)
    legal_A = legal_tokens(config, data)
    if legal_A is not None:
        frequency_A[~legal_A] = -1
    frequent = [i for i in frequency_A.argsort(descending=True).tolist() if frequency_A[i] >= 0]
    reference = data.train_ids if len(data.train_ids) else data.heldout_ids
    return TextEvaluator(
        data.heldout_ids, make_env, frequent, gamma, q_is_return, settings["samples"], settings["sample_tokens"],
        settings["sample_temperature"], seed, baselines(reference, data.heldout_ids, data.tokenizer.vocabulary_size),
    )  # fmt: skip


def _of_log(config: Config, data: Log, device: torch.device, objectives: Objectives) -> LogEvaluator:
    """On the held-out rows, and on greedy answers to their prompts."""
    env = build_env(config, data, device, config["seed"], evaluating=True)
    assert isinstance(env, Logged)
    settings = config["trainer"]
    return LogEvaluator(
        data.heldout, _judge(config, data), env.horizon, config["learner"]["gamma"], settings["betas"], settings["samples"],
        settings["evaluation_episodes"], learns_returns(objectives),
    )  # fmt: skip


def _judge(config: Config, data: Log) -> Reward | None:
    """The run's reward, which here judges greedy answers alone; None for none.

    Raises:
        UserError: a reward that needs a text to compare with, token by token.
    """
    pool: dict[str, Any] = {
        "num_actions": data.tokenizer.vocabulary_size, "tokenizer": data.tokenizer, "train_ids": data.train_ids,
        "stop_id": data.tokenizer.end_id,
    }  # fmt: skip
    reward = build_reward(config["reward"], pool)
    if reward.pays_nothing:
        return None
    if not reward.judged:
        raise UserError(
            f"reward={option_name(config, 'reward')} compares token by token with a given text, and with a "
            "log there is none: set reward=none, or a judge of the greedy answers: reward=function, classifier, language_model, "
            "lexicon"
        )
    return reward
