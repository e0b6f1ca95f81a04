"""Loads a policy from a run directory. Reads `weights_only` tensors, YAML and JSON; executes no code from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from dqnlm.agent.policy import ActingQ, Kind, Policy
from dqnlm.builder import agent
from dqnlm.builder.kept_tokenizer import build_data_with
from dqnlm.builder.places import config_elsewhere
from dqnlm.data.tokenizers import factory
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.errors import UserError
from dqnlm.networks.fixed_weights import load_changing_state
from dqnlm.runs import checkpoint
from dqnlm.runs.directory import RunDirectory, find_run
from dqnlm.types import Bounds, TaskSpec


def load_policy(
    run: str | Path,
    which: str = "best",
    *,
    output_dir: str | Path = "outputs",
    device: str = "auto",
    allow_targets: Sequence[str] = (),
    base: str | None = None,
    places: Sequence[str] = (),
) -> Policy:
    """Loads the policy of a run for generation; its environment and data are not needed.

    Args:
        run: a run's folder, `latest`, or a unique prefix of its name.
        which: `best`, `last`, or a step.
        output_dir: where short names are looked up.
        device: auto, cpu, cuda ...
        allow_targets: modules outside dqnlm whose code the run may use (a network or reward of your own).
        base: folder of the pretrained model of a LoRA run, which keeps its adapters and outputs alone; None: where it was
            when the run was trained.
        places: where other files of the run lie now, as settings: `env.path=/there/env.py:Corridor`.

    Returns:
        A `Policy` in evaluation mode, without gradients.

    Raises:
        UserError: no such run or checkpoint, or it is damaged.
    """
    policy, _ = load_policy_and_config(run, which, output_dir, device, allow_targets, base, places)
    return policy


def load_policy_and_config(
    run: str | Path, which: str, output_dir: str | Path, device: str, allow_targets: Sequence[str] = (),
    base: str | None = None, places: Sequence[str] = (), check: Callable[[RunDirectory, agent.Config], None] | None = None,
) -> tuple[Policy, agent.Config]:
    """As `load_policy`, with the run's configuration; `check` may refuse it before anything of the policy is read."""
    directory = RunDirectory(find_run(str(run), output_dir))
    config = config_elsewhere(directory, places, allow_targets)
    if base is not None:
        config = with_base(config, base)
    if check is not None:
        check(directory, config)
    where = agent.choose_device(device)
    path = checkpoint.find(directory.checkpoints, which)
    state = checkpoint.load(path, "policy", where)
    with checkpoint.must_fit(directory.path):
        bounds = Bounds(float(state["head"]["low"]), float(state["head"]["high"]))
        tokenizer = None if state["tokenizer"] is None else factory.from_state(state["tokenizer"])
        spec, outputs = _spec(state["spec"])
        _require_whole(state, spec, tokenizer)
    head = agent.head_for(config, bounds, state["is_probability"]).to(where)
    network = agent.build_network(config, spec, outputs, head, tokenizer, state.get("recipe")).to(where)
    with checkpoint.must_fit(directory.path):
        load_changing_state(network, state["network"])
    network.eval().requires_grad_(False)
    policy = Policy(
        network,
        head,
        tokenizer,
        state["legal"],
        state["declared"],
        state["temperature"],
        state["step"],
        state["beta"],
        spec,
        outputs,
        state.get("acting_q", "min"),
        config["policy"]["temperature"] is not None,
        state.get("weights") or None,
    )
    return policy, config


def load_data(policy: Policy, config: agent.Config) -> Any:
    """The data that the run of a policy was trained on, or what is found in its place (the caller compares).

    Raises:
        UserError: a file of the run is not where it was, or is wrong.
    """
    tokenizer = None if policy.tokens is None else policy.tokens.state()
    return build_data_with(config, True, tokenizer, policy.network.body.recipe)


def with_base(config: agent.Config, base: str) -> agent.Config:
    """The configuration with the pretrained model, and its tokenizer where that is the data's, in the folder `base`.

    Raises:
        UserError: the run's network is no pretrained model.
    """
    network, data = config["network"], config["data"]
    if "name_or_path" not in network:
        raise UserError("--base is the folder of a pretrained model, and this run's network is none; leave it out")
    where = str(Path(base).expanduser().absolute()) if Path(base).expanduser().exists() else base
    if data.get("tokenizer") == network["name_or_path"]:
        data = data | {"tokenizer": where}
    return config | {"network": network | {"name_or_path": where}, "data": data}


def _require_whole(state: dict[str, Any], spec: TaskSpec, tokenizer: Tokenizer | None) -> None:
    """Raises ValueError where parts of a checkpoint do not belong together, or have values that none has."""
    if tokenizer is not None:
        # A task on an alphabet of its own has no unknown token, and a pretrained network may have more rows than tokens.
        known = tokenizer.vocabulary_size - (tokenizer.unknown_id is not None)
        if spec.num_tokens < known or (spec.num_tokens > tokenizer.vocabulary_size and state.get("recipe") is None):
            raise ValueError(f"a tokenizer of {tokenizer.vocabulary_size:,} tokens, and a network of {spec.num_tokens:,}")
    if state["legal"] is not None and state["legal"].numel() != spec.num_actions:
        raise ValueError(f"{state['legal'].numel()} tokens with a mark whether they may be chosen, of {spec.num_actions}")
    if state["declared"] not in get_args(Kind) or state.get("acting_q", "min") not in get_args(ActingQ):
        raise ValueError(f"no such policy: {state['declared']}, {state.get('acting_q')}")
    if not state["temperature"] > 0:
        raise ValueError(f"the temperature {state['temperature']}")


def _spec(saved: Any) -> tuple[TaskSpec, tuple[str, ...]]:
    """The task's facts and the network's outputs beside q; older runs saved a list of four of them."""
    if isinstance(saved, list):
        num_tokens, observation_size, num_actions, outputs = saved
        sizes = {"num_tokens": num_tokens, "observation_size": observation_size, "num_actions": num_actions}
        return TaskSpec(**sizes, row_transitions=0, episode_steps=0), tuple(outputs)
    facts = dict(saved)
    outputs = facts.pop("outputs")
    return TaskSpec(**facts), tuple(outputs)
