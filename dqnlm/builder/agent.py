"""One function for each part of a run: configuration in, object out. The builder puts them together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dqnlm.agent.policy import Policy, Spec
from dqnlm.buffers.storage import Layout
from dqnlm.builder.memory import check_outputs
from dqnlm.builder.task_assembly import legal_tokens, tokenizer_of
from dqnlm.config.schema import assemble
from dqnlm.data.kinds import Data
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.networks.base import Body, OneHotEncoder, QNetwork, TokenEncoder, VectorEncoder
from dqnlm.networks.projections import Linear
from dqnlm.objectives.base import Objective
from dqnlm.objectives.bootstrap import Bootstrap
from dqnlm.objectives.returns import Returns
from dqnlm.rewards.base import Reward
from dqnlm.types import Bounds

Config = dict[str, Any]

# Independent random streams of one run: seed * 1000 + the stream's number.
STREAM_ENV, STREAM_EXPLORATION, STREAM_BUFFER, STREAM_EVALUATION = 1, 2, 3, 4
STREAM_WARM_START, STREAM_DEMONSTRATIONS = 5, 6


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


def build_head(config: Config, env: Environment) -> Head:
    """The meaning of the network's raw numbers, with the return's bounds."""
    bounds = env.return_bounds(config["learner"]["gamma"])
    reward = reward_of(env)
    # Q is the probability of being the rewarded action where no later reward is added to that of the match.
    is_match = reward is not None and reward.pays_only_the_match and tuple(bounds) == (0.0, 1.0)
    return head_for(config, bounds, is_match)


def head_for(config: Config, bounds: Bounds, probability_of_match: bool) -> Head:
    """As `build_head`, without an environment."""
    head: Head = assemble(config["head"], {"bounds": bounds, "probability_of_match": probability_of_match}, "head")
    return head


def reward_of(env: Environment) -> Reward | None:
    """The run's own reward, where the environment asks one; None where it brings its own rewards."""
    reward = getattr(env, "reward", None)
    return reward if isinstance(reward, Reward) else None


def build_bootstrap(config: Config) -> Bootstrap:
    """The value of a state."""
    bootstrap: Bootstrap = assemble(config["bootstrap"], {}, "bootstrap")
    return bootstrap


def build_returns(config: Config) -> Returns:
    """How far the rewards of a target reach."""
    returns: Returns = assemble(config["returns"], {}, "returns")
    return returns


def build_network(
    config: Config, spec: Spec, head: Head, tokenizer: Tokenizer | None, recipe: dict[str, Any] | None = None
) -> QNetwork:
    """Encoder, body and the outputs that the objectives need; `recipe` is that of a saved body."""
    tokens = None if tokenizer is None else tokenizer.state()
    pool_of_body = {"num_tokens": spec.num_tokens, "tokenizer": tokens, "recipe": recipe}
    body: Body = assemble(config["network"], pool_of_body, "network")
    if body.one_hot and spec.observation_size:
        raise UserError(
            "network=table holds a value for each token, but observations here are vectors; use network=window_mlp"
        )
    encoder = body.make_encoder() or _usual_encoder(body, spec)

    def make(features: int, num_actions: int, num_parameters: int) -> nn.Module:
        pool = {"features": features, "num_actions": num_actions, "num_parameters": num_parameters}
        projection: nn.Module = assemble(config["projection"], pool, "projection")
        return projection

    def output(name: str) -> nn.Module:
        if name in ("q", "q2"):
            return head.project(make, body.features, spec.num_actions)
        return Linear(body.features, 1 if name == "v" else spec.num_actions, 1)

    outputs = body.make_outputs(("q", *spec.outputs), spec.num_actions, output)
    return QNetwork(encoder, body, outputs)


def _usual_encoder(body: Body, spec: Spec) -> nn.Module:
    """What reads observations of this kind."""
    if spec.observation_size:
        return VectorEncoder(spec.observation_size, body.width)
    if body.one_hot:
        return OneHotEncoder(spec.num_tokens)
    return TokenEncoder(spec.num_tokens, body.width, body.embedding_std)


def build_policy(
    config: Config,
    data: Data,
    env: Environment,
    head: Head,
    outputs: tuple[str, ...],
    device: torch.device,
    recipe: dict[str, Any] | None = None,
) -> Policy:
    """Network and head, with fresh weights; `recipe` is that of a saved body."""
    spec = Spec(env.num_tokens, env.observation_size, env.num_actions, outputs)
    tokenizer, legal_A, settings = tokenizer_of(data, env), legal_tokens(config, data), config["trainer"]
    check_outputs(config, env.row_transitions + 1, spec, head.num_parameters, device)
    network = build_network(config, spec, head, tokenizer, recipe)
    return Policy(
        network.to(device), head.to(device), tokenizer, None if legal_A is None else legal_A.to(device),
        settings["declared_policy"], 1.0, beta=settings["beta"] or 0.0, spec=spec,
    )  # fmt: skip


def build_objectives(
    config: Config, env: Environment, head: Head, bootstrap: Bootstrap, returns: Returns
) -> dict[str, Objective]:
    """The objectives of a run; those that learn from rewards get what they need of the environment."""
    reward_all: Callable[[Tensor], Tensor] | None = None
    reward = reward_of(env)
    if config["learner"]["feedback"] == "all_actions" and reward is not None:
        reward_all = lambda observation_BS: reward.all_actions(observation_BS[:, 1:])  # noqa: E731
    pool: dict[str, Any] = {
        "head": head, "legal": env.legal, "reward_all": reward_all, "bootstrap": bootstrap, "returns": returns,
        "values_matter": config["learner"]["gamma"] > 0 or env.interleaved,
        # A window around a single decision ends with it: the observation after it has a value unless the episode ended.
        "interleaved": env.interleaved,
        "last_has_value": env.cuts_rows or config["buffer"].get("sample") == "transitions",
    }  # fmt: skip
    return _objectives(config, pool)


def objectives_without_env(config: Config, head: Head) -> dict[str, Objective]:
    """The objectives of a finished run, to ask what they are; they can not be trained with."""
    pool: dict[str, Any] = {
        "head": head, "legal": lambda observation_BS: None, "reward_all": None, "bootstrap": build_bootstrap(config),
        "returns": build_returns(config), "values_matter": True, "interleaved": False, "last_has_value": False,
    }  # fmt: skip
    return _objectives(config, pool)


def _objectives(config: Config, pool: dict[str, Any]) -> dict[str, Objective]:
    return {name: assemble(node, pool, f"objective.{name}") for name, node in config["objective"].items()}


def outputs_of(objectives: dict[str, Objective]) -> tuple[str, ...]:
    """Named outputs beside q that some objective needs."""
    return tuple(sorted({name for objective in objectives.values() for name in objective.needs_outputs}))


def build_buffer(
    config: Config, env: Environment, lookahead: int | None, history: int, device: torch.device, logged_rows: int
) -> Any:
    """Where rows are kept."""
    layout = Layout(
        row_transitions=env.row_transitions, first_decision=env.first_decision, num_tokens=env.num_tokens,
        num_actions=env.num_actions, observation_size=env.observation_size, interleaved=env.interleaved,
        stores_actions=not env.actions_are_observed, gamma=config["learner"]["gamma"], history=history,
        lookahead=lookahead, copies=env.copies, logged_rows=logged_rows,
    )  # fmt: skip
    pool = {"layout": layout, "device": device, "generator": stream(device, config["seed"], STREAM_BUFFER)}
    return assemble(config["buffer"], pool, "buffer")
