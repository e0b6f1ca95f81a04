"""Who scores a run: chosen by its data."""

from __future__ import annotations

from typing import Any

import torch

from dqnlm.assembly import STREAM_EVALUATION, Data, build_env, legal_tokens
from dqnlm.data.baselines import baselines
from dqnlm.data.corpora import Corpus
from dqnlm.data.pairs import Pairs
from dqnlm.envs.base import Environment
from dqnlm.episodes import EpisodeEvaluator
from dqnlm.evaluator import TextEvaluator
from dqnlm.pair_evaluator import PairEvaluator

Config = dict[str, Any]


def build_evaluator(config: Config, data: Data, device: torch.device) -> TextEvaluator | EpisodeEvaluator:
    """Scores on the held-out part of a text, or on episodes alone; the same episodes at every evaluation."""
    settings, seed = config["trainer"], config["seed"] * 1000 + STREAM_EVALUATION

    episodes = settings["evaluation_episodes"]
    if isinstance(data, Pairs):  # each pair once
        episodes = min(episodes, len(data.heldout.texts))

    def make_env() -> Environment:
        return build_env(config, data, device, seed, evaluating=True, num_envs=episodes)

    gamma = config["learner"]["gamma"]
    if isinstance(data, Pairs):
        texts = [pair.answer for pair in data.heldout.texts]
        return PairEvaluator(make_env, gamma, settings["betas"], settings["samples"], texts)
    if not isinstance(data, Corpus):
        return EpisodeEvaluator(make_env, gamma, settings["betas"], settings["samples"])
    frequency_A = torch.bincount(data.train_ids.long(), minlength=data.tokenizer.vocabulary_size)
    legal_A = legal_tokens(config, data)
    if legal_A is not None:
        frequency_A[~legal_A] = -1
    frequent = [i for i in frequency_A.argsort(descending=True).tolist() if frequency_A[i] >= 0]
    reference = data.train_ids if len(data.train_ids) else data.heldout_ids
    return TextEvaluator(
        data.heldout_ids, make_env, frequent, gamma, settings["samples"], settings["sample_tokens"],
        settings["sample_temperature"], seed, baselines(reference, data.heldout_ids, data.tokenizer.vocabulary_size),
    )  # fmt: skip
