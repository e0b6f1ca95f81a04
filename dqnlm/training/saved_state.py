"""The contents of a checkpoint: collected from the components of a run, and restored into them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from dqnlm.config.moved import renewed_metrics
from dqnlm.errors import UserError
from dqnlm.networks.fixed_weights import changing_state
from dqnlm.runs import checkpoint
from dqnlm.runs.fingerprints import other_data
from dqnlm.training import resharding
from dqnlm.training.components import Components
from dqnlm.utils import sharding

State = dict[str, Any]


def policy_state(components: Components) -> State:
    """State of the policy: network, head, tokenizer and fitted temperature. All ranks call it; whole on rank 0 alone."""
    policy = components.policy
    return {
        "network": sharding.whole(changing_state(policy.network), components.ranks.is_first), "head": policy.head.state_dict(),
        "tokenizer": None if policy.tokens is None else policy.tokens.state(), "temperature": policy.temperature,
        "declared": policy.declared, "legal": policy.legal_A, "step": policy.step,
        "is_probability": policy.head.is_probability, "beta": policy.beta,
        "acting_q": policy.acting_q, "weights": policy.weights,
        "spec": asdict(policy.spec) | {"outputs": list(policy.outputs)},
        "recipe": policy.network.body.recipe,
    }  # fmt: skip


def training_state(components: Components, loop: State) -> State:
    """State of the training besides the policy; `loop` is that of the training loop.

    All ranks call it; whole on rank 0 alone, where `others` is what the other ranks have of their own.
    """
    learner = components.learner.state_dict()
    del learner["network"]  # stands in the policy
    own = _own_state(components)
    cloning = {} if components.pretraining is None else components.pretraining.state_dict()
    shared: State = {
        "learner": learner, "fingerprint": components.fingerprint, "trainer": loop,
        "warm_start": None if components.pretraining is None else cloning | own["warm_start"],
        "others": components.ranks.gather(own),
    }  # fmt: skip
    return own | sharding.whole(shared, components.ranks.is_first)


def _own_state(components: Components) -> State:
    """What differs between the ranks of a run: replay, environments, random streams."""
    return {
        "buffer": components.buffer.state_dict(), "env": components.env.state_dict(),
        "actor": None if components.actor is None else components.actor.state_dict(),
        "exploration": components.exploration.generator.get_state(),
        "accumulator": components.accumulator.state_dict(), "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "warm_start": None if components.pretraining is None else {"generator": components.pretraining.demonstrations.state()},
        "demonstrations": None if components.demonstrations is None else components.demonstrations.state(),
    }  # fmt: skip


def restore(components: Components, policy: State, training: State, reshard: bool = False) -> None:
    """Restores a saved run into freshly built components; `reshard`: with another number of processes than before.

    Raises:
        UserError: the data is not what the run was trained on, the state is of other parts or of another number of processes.
    """
    if training["fingerprint"] != components.fingerprint:
        raise other_data(
            components.directory, components.task.data.source, components.fingerprint, training["fingerprint"],
            "or start a new run from the weights: dqnlm train ... pretraining.init_from=RUN",
        )  # fmt: skip
    shares = [training, *training.get("others", [])]
    with checkpoint.must_fit(components.directory.path):
        components.learner.load_state_dict(training["learner"] | {"network": policy["network"]})
        components.policy.temperature, components.policy.step = policy["temperature"], policy["step"]
        if len(shares) == components.ranks.world:
            _put_back(components, training, shares[components.ranks.rank])
        elif reshard:
            resharding.put_back(components, training, shares)
        else:
            raise UserError(resharding.refusal(components.directory.path, len(shares), components.ranks.world))
        components.count_env_steps()


def _put_back(components: Components, training: State, own: State) -> None:
    """Restores what is this rank's own, bit for bit."""
    cloning = training["warm_start"]
    training = training | own
    components.buffer.load_state_dict(training["buffer"])
    components.env.load_state_dict(training["env"])
    if components.actor is not None:
        components.actor.load_state_dict(training["actor"])
    components.exploration.generator.set_state(training["exploration"].cpu())
    components.accumulator.load_state_dict(renewed_metrics(training["accumulator"]))
    torch.set_rng_state(training["random"].cpu())
    if training["random_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in training["random_cuda"]])
    if components.pretraining is not None:
        components.pretraining.load_state_dict(cloning | training["warm_start"])
    if components.demonstrations is not None:
        components.demonstrations.load_state(training["demonstrations"])
