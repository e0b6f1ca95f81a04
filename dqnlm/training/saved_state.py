"""The contents of a checkpoint: collected from the components of a run, and restored into them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from dqnlm.errors import UserError
from dqnlm.runs import checkpoint
from dqnlm.training.components import Components

State = dict[str, Any]


def policy_state(parts: Components) -> State:
    """State of the policy: network, head, tokenizer and fitted temperature."""
    policy = parts.policy
    return {
        "network": policy.network.state_dict(), "head": policy.head.state_dict(),
        "tokenizer": None if policy.tokens is None else policy.tokens.state(), "temperature": policy.temperature,
        "declared": policy.declared, "legal": policy.legal_A, "step": policy.step,
        "is_probability": policy.head.is_probability, "beta": policy.beta,
        "spec": asdict(policy.spec) | {"outputs": list(policy.outputs)},
        "recipe": policy.network.body.recipe,
    }  # fmt: skip


def training_state(parts: Components, loop: State) -> State:
    """State of the training besides the policy; `loop` is that of the training loop."""
    learner = parts.learner.state_dict()
    del learner["network"]  # stands in the policy
    return {
        "learner": learner, "buffer": parts.buffer.state_dict(), "env": parts.env.state_dict(),
        "actor": None if parts.actor is None else parts.actor.state_dict(),
        "exploration": parts.exploration.generator.get_state(),
        "accumulator": parts.accumulator.state_dict(), "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "fingerprint": parts.fingerprint, "trainer": loop,
        "warm_start": None if parts.pretraining is None else parts.pretraining.state_dict(),
        "demonstrations": None if parts.demonstrations is None else parts.demonstrations.state(),
    }  # fmt: skip


def restore(parts: Components, policy: State, training: State) -> None:
    """Restores a saved run into freshly built components.

    Raises:
        UserError: the data is not what the run was trained on, or the state is of other parts.
    """
    if training["fingerprint"] != parts.fingerprint:
        raise UserError(
            "the data is not what this run was trained on (its fingerprint differs); give the same data.path, "
            "data.tokenizer and data.heldout_fraction, or start a new run with pretraining.init_from=RUN"
        )
    with checkpoint.must_fit(parts.directory.path):
        _put_back(parts, policy, training)


def _put_back(parts: Components, policy: State, training: State) -> None:
    parts.learner.load_state_dict(training["learner"] | {"network": policy["network"]})
    parts.policy.temperature, parts.policy.step = policy["temperature"], policy["step"]
    parts.buffer.load_state_dict(training["buffer"])
    parts.env.load_state_dict(training["env"])
    if parts.actor is not None:
        parts.actor.load_state_dict(training["actor"])
    parts.exploration.generator.set_state(training["exploration"].cpu())
    parts.accumulator.load_state_dict(training["accumulator"])
    torch.set_rng_state(training["random"].cpu())
    if training["random_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in training["random_cuda"]])
    if parts.pretraining is not None:
        parts.pretraining.load_state_dict(training["warm_start"])
    if parts.demonstrations is not None:
        parts.demonstrations.load_state(training["demonstrations"])
