"""Factory functions of the agent's components: configuration in, object out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dqnlm.agent.learner import Learner
from dqnlm.agent.policy import Policy
from dqnlm.agent.reward_weights import weights_of
from dqnlm.buffers.base import Buffer, Setup
from dqnlm.builder.memory import check_outputs
from dqnlm.builder.shares import logged_rows_of
from dqnlm.config.schema import instantiate, instantiate_with
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.metrics import Accumulator
from dqnlm.networks.base import Body, OneHotEncoder, QNetwork, TokenEncoder, VectorEncoder
from dqnlm.networks.projections import Linear
from dqnlm.objectives.base import Objective, combined
from dqnlm.objectives.bootstrap import Bootstrap
from dqnlm.objectives.per_reward import for_rewards
from dqnlm.objectives.returns import Returns
from dqnlm.tasks.base import Task
from dqnlm.types import Bounds, TaskSpec
from dqnlm.utils import streams
from dqnlm.utils.output_names import all_outputs, plain
from dqnlm.utils.ranks import ALONE, Ranks

Config = dict[str, Any]

def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1`; of several processes, each has a CUDA device of its own where there are as many.

    Raises:
        UserError: not a device, or none such here.
    """
    if name == "auto":
        return ranks.device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device={name} cannot be used here ({str(error).splitlines()[0]}); use device=auto or device=cpu"
        ) from None
    return ranks.device(device)


def build_head(config: Config, task: Task) -> Head:
    """Builds the head, with the bounds of the return."""
    bounds, reward = task.env.return_bounds(config["gamma"]), task.reward
    # Q is the probability of being the rewarded action where no later reward is added to that of the match.
    is_match = reward is not None and reward.is_match_indicator and tuple(bounds) == (0.0, 1.0)
    return head_for(config, bounds, is_match)


def head_for(config: Config, bounds: Bounds, probability_of_match: bool) -> Head:
    """As `build_head`, without an environment."""
    head: Head = instantiate_with(config["head"], {"bounds": bounds, "probability_of_match": probability_of_match}, "head")
    return head


def set_precision(config: Config, device: torch.device) -> None:
    """With bfloat16 forwards, the other matrix products of a CUDA device (acting, evaluation) are in TF32; else in float32."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config["learner"]["precision"] == "bfloat16" else "highest")


def build_bootstrap(config: Config) -> Bootstrap:
    """Builds the bootstrap."""
    bootstrap: Bootstrap = instantiate_with(config["bootstrap"], {}, "bootstrap")
    return bootstrap


def build_returns(config: Config) -> Returns:
    """Builds the returns."""
    returns: Returns = instantiate_with(config["returns"], {}, "returns")
    return returns


def build_network(
    config: Config,
    spec: TaskSpec,
    outputs: tuple[str, ...],
    head: Head,
    tokenizer: Tokenizer | None,
    recipe: dict[str, Any] | None = None,
) -> QNetwork:
    """Builds encoder, body and the outputs that the objectives need; `recipe` is that of a saved body."""
    tokens = None if tokenizer is None else tokenizer.state()
    pool_of_body = {"num_tokens": spec.num_tokens, "tokenizer": tokens, "recipe": recipe}
    body: Body = instantiate_with(config["network"], pool_of_body, "network")
    if body.one_hot and spec.observation_size:
        raise UserError(
            "network=table holds a value for each token, but observations here are vectors; use network=window_mlp"
        )
    encoder = body.make_encoder() or _usual_encoder(body, spec)

    def make(features: int, num_actions: int, num_parameters: int) -> nn.Module:
        pool = {"features": features, "num_actions": num_actions, "num_parameters": num_parameters}
        projection: nn.Module = instantiate_with(config["projection"], pool, "projection")
        return projection

    def output(name: str) -> nn.Module:
        kind = plain(name, spec.reward_names)
        if kind in ("q", "q2"):
            return head.project(make, body.features, spec.num_actions)
        return Linear(body.features, 1 if kind == "v" else spec.num_actions, 1)

    names = all_outputs(outputs, spec.reward_names)
    return QNetwork(encoder, body, body.make_outputs(names, spec.num_actions, output))


def _usual_encoder(body: Body, spec: TaskSpec) -> nn.Module:
    """Builds the default encoder for this kind of observation."""
    if spec.observation_size:
        return VectorEncoder(spec.observation_size, body.width)
    if body.one_hot:
        return OneHotEncoder(spec.num_tokens)
    return TokenEncoder(spec.num_tokens, body.width, body.embedding_std)


def build_policy(
    config: Config,
    task: Task,
    head: Head,
    outputs: tuple[str, ...],
    device: torch.device,
    recipe: dict[str, Any] | None = None,
    in_full: bool = True,
) -> Policy:
    """Builds network and head, with initial weights; `recipe` is that of a saved body, `in_full` as of `check_outputs`."""
    spec, tokenizer, legal_A, settings = task.spec, task.tokenizer, task.legal_A, config["policy"]
    check_outputs(config, spec, outputs, head.num_parameters, device, in_full)
    network = build_network(config, spec, outputs, head, tokenizer, recipe)
    return Policy(
        network.to(device), head.to(device), tokenizer, None if legal_A is None else legal_A.to(device),
        settings["kind"], settings["temperature"] or 1.0, beta=settings["beta"] or 0.0, spec=spec, outputs=outputs,
        acting_q=settings["acting_q"], has_own_temperature=settings["temperature"] is not None,
        weights=weights_of(settings["weights"], spec.reward_names, "policy.weights"),
    )  # fmt: skip


def build_objectives(
    config: Config, task: Task, head: Head, bootstrap: Bootstrap, returns: Returns
) -> dict[str, Objective]:
    """Builds the objectives of a run, with the facts of the task that they need."""
    spec, reward, reward_all = task.spec, task.reward, None
    if config["feedback"] == "all_actions" and reward is not None:

        def reward_all(observation_BS: Tensor) -> Tensor:
            return reward.all_actions(observation_BS[:, 1:])

    pool: dict[str, Any] = {
        "head": head, "reward_all": reward_all, "bootstrap": bootstrap, "returns": returns,
        "values_matter": config["gamma"] > 0 or spec.multi_turn,
        # A window around a single decision ends with it: the observation after it has a value unless the episode ended.
        "last_has_value": spec.truncates or config["buffer"].get("sample") == "transitions",
    }  # fmt: skip
    return _objectives(config, pool, spec.reward_names)


def objectives_without_env(config: Config, head: Head, rewards: Sequence[str] = ()) -> dict[str, Objective]:
    """Builds the objectives of a finished run to read their attributes; they cannot be trained with."""
    pool: dict[str, Any] = {
        "head": head, "reward_all": None, "bootstrap": build_bootstrap(config), "returns": build_returns(config),
        "values_matter": True, "last_has_value": False,
    }  # fmt: skip
    return _objectives(config, pool, rewards)


def _objectives(config: Config, pool: dict[str, Any], rewards: Sequence[str]) -> dict[str, Objective]:
    found = {name: instantiate_with(node, pool, f"objective.{name}") for name, node in config["objective"].items()}
    return for_rewards(found, rewards)


def outputs_of(config: Config, objectives: dict[str, Objective]) -> tuple[str, ...]:
    """Named outputs besides q, sorted: what some objective needs, and pi_b where the policy acts by it."""
    names = set(combined(objective.requires for objective in objectives.values()).outputs)
    return tuple(sorted(names | ({"policy"} if config["policy"]["kind"] == "reweighted" else set())))


def build_learner(
    config: Config, task: Task, policy: Policy, head: Head, objectives: dict[str, Objective], accumulator: Accumulator,
    ranks: Ranks,
) -> Learner:
    """Builds the learner with its target network and optimizer; the schedule spans the updates of all rounds."""
    settings = config["trainer"]
    total = (settings["rollouts"] + settings["offline_rounds"]) * settings["updates_per_rollout"]
    target = instantiate(config["target"], policy.network)
    optimizer = instantiate(config["optimizer"], policy.network, total)
    spec, legal = task.spec, task.env.legal
    learner: Learner = instantiate(
        config["learner"], policy.network, target, objectives, optimizer, accumulator, spec.context_carry, head, legal,
        spec.multi_turn, updates_repeat(config, spec), ranks, spec.variable_length,
    )  # fmt: skip
    return learner


def updates_repeat(config: Config, spec: TaskSpec) -> bool:
    """Whether all updates do the same operations: batches have one shape, and no code is the user's, which may do anything."""
    return not spec.variable_length and not _names_own_code(config)


def _names_own_code(node: Config) -> bool:
    return not str(node.get("_target_", "dqnlm.")).startswith("dqnlm.") or any(
        _names_own_code(value) for value in node.values() if isinstance(value, dict)
    )


def build_buffer(
    config: Config, task: Task, lookahead: int | None, context: int, device: torch.device, ranks: Ranks
) -> Buffer:
    """Builds the empty buffer; the network uses `context` observations, targets span `lookahead` decisions."""
    setup = Setup(
        spec=task.spec, gamma=config["gamma"], context=context, lookahead=lookahead,
        logged_rows=logged_rows_of(task.num_logged_rows, ranks), device=device, ranks=ranks,
        generator=streams.stream(device, config["seed"], streams.BUFFER),
        siblings=config["env"].get("samples_per_prompt", 1), burn_in=config["learner"]["burn_in"],
    )  # fmt: skip
    buffer: Buffer = instantiate_with(config["buffer"], {"setup": setup}, "buffer")
    return buffer
