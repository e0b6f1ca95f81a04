"""Initial weights: those of another run (pretraining.init_from), and the learner that clones demonstrations before training."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from dqnlm.agent import target
from dqnlm.agent.demonstrations import Demonstrations, Pretraining
from dqnlm.agent.learner import Learner
from dqnlm.agent.policy import Policy
from dqnlm.agent.settings import PretrainingSettings
from dqnlm.builder.agent import updates_repeat
from dqnlm.config.schema import instantiate
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator
from dqnlm.networks.fixed_weights import load_changing_state
from dqnlm.networks.projections import Dueling, Linear
from dqnlm.objectives.cross_entropy import FIXED_POLICY, CrossEntropy
from dqnlm.runs import checkpoint
from dqnlm.runs.directory import RunDirectory, find_run
from dqnlm.utils import streams
from dqnlm.utils.ranks import Ranks

Config = dict[str, Any]

# Weight of Z^2 / 2 in the cloning of a warm start, Z the logsumexp of the logits: they end near log-probabilities (Q of a soft
# policy at temperature 1, value 0). The weight is that of self-normalised language models (Devlin et al. 2014).
_NORMALISER = 0.1


def build_pretraining(
    config: Config, env: Environment, policy: Policy, accumulator: Accumulator, ranks: Ranks
) -> Pretraining | None:
    """The cloning before the run's own objectives; None for none. It writes into the output that the policy acts by."""
    settings: PretrainingSettings = instantiate(config["pretraining"])
    if settings.updates == 0:
        return None
    acts_by: Literal["q", "policy"] = "policy" if policy.declared == "reweighted" else "q"
    if acts_by == "policy" and not policy.network.learns("policy"):
        raise UserError(FIXED_POLICY.format("pretraining.updates"))
    cloning = CrossEntropy(
        weight=1.0, output=acts_by, normaliser_weight=_NORMALISER if acts_by == "q" else 0.0
    )
    lr = config["optimizer"]["lr"] if settings.lr is None else settings.lr
    optimization = instantiate(config["optimizer"] | {"lr": lr}, policy.network, settings.updates)
    cloner: Learner = instantiate(
        config["learner"] | {"burn_in": 0, "kl_weight": 0.0},
        policy.network, target.none(policy.network), {"pretraining": cloning}, optimization, accumulator,
        env.spec.context_carry, policy.head, env.legal, env.spec.multi_turn, updates_repeat(config, env.spec), ranks,
    )  # fmt: skip
    demonstrations = build_demonstrations(config, env, streams.PRETRAINING)
    batch_size = config["trainer"]["batch_size"] if settings.batch_size is None else settings.batch_size
    return Pretraining(cloner, demonstrations, settings.updates, batch_size)


def build_demonstrations(config: Config, env: Environment, number: int) -> Demonstrations:
    """References of this environment, drawn from a random stream of their own."""
    generator = streams.stream(env.device, config["seed"], number)
    return Demonstrations(env, generator, config["gamma"])


def load_weights(policy: Policy, config: Config) -> None:
    """Starts from the weights of another run (pretraining.init_from); the rest of that run is not taken.

    Raises:
        UserError: the networks or the vocabularies differ.
    """
    settings: PretrainingSettings = instantiate(config["pretraining"])
    assert settings.init_from is not None
    init_scale, source = settings.init_scale, find_run(settings.init_from, config["output_dir"])
    path = checkpoint.find(RunDirectory(source).checkpoints, "best")
    state = checkpoint.load(path, "policy", policy.device)
    own = None if policy.tokens is None else policy.tokens.state()
    if state["tokenizer"] != own:
        raise UserError(
            f"pretraining.init_from={source}: that run has another vocabulary than this text; train on the same text"
        )
    try:
        load_changing_state(policy.network, state["network"])
    except RuntimeError as error:
        raise UserError(
            f"pretraining.init_from={source}: the networks differ ({str(error).splitlines()[-1].strip()}); use the same "
            "network=, projection= and head= settings as that run's config.yaml"
        ) from None
    if init_scale == 1:
        return
    projection = None if policy.spec.reward_names else policy.network.projections["q"]
    if not isinstance(projection, Linear | Dueling) or policy.network.body.tie_weights:
        raise UserError(
            f"pretraining.init_scale={init_scale} scales the last layer of q, which needs projection=linear or dueling, a head "
            "without sampled quantiles, one reward, and network.tie_weights=false; else leave it at 1"
        )
    with torch.no_grad():
        for layer in projection.children():  # a linear layer, or a small network that ends in one
            for parameter in (layer[-1] if isinstance(layer, nn.Sequential) else layer).parameters():
                parameter.mul_(init_scale)
