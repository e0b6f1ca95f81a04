"""One function for each part of a run: configuration in, object out. The builder puts them together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dqnlm.buffers.storage import Layout
from dqnlm.checks import kind, named, pays_only_the_match
from dqnlm.config import assemble, instantiate
from dqnlm.data import tokenizers
from dqnlm.data.corpora import Corpus
from dqnlm.data.logs import Log
from dqnlm.data.pair_files import read_dialogues
from dqnlm.data.pairs import Pairs
from dqnlm.data.tokenizers import Tokenizer
from dqnlm.data.trajectories import NoData, Trajectories
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.log_parts import shape_of
from dqnlm.memory import check_outputs
from dqnlm.networks.base import Body, OneHotEncoder, QNetwork, TokenEncoder, VectorEncoder
from dqnlm.networks.projections import Linear
from dqnlm.objectives.base import Objective
from dqnlm.policy import Policy, Spec
from dqnlm.rewards.base import Reward
from dqnlm.types import Bounds
from dqnlm.validation import resolve_target

Config = dict[str, Any]
Data = Corpus | Pairs | Log | Trajectories | NoData
OnText = Corpus | Pairs | Log  # with a tokenizer of its own

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
    elif kind(config["reward"]) == "NoReward" and isinstance(data, OnText):
        raise UserError(
            f"reward=none: env={named(config, 'env')} has no other rewards to learn from; choose one (env=logged has a log's)"
        )
    if isinstance(data, Corpus):
        stop = node["stop_token"]
        pool["corpus_ids"] = data.heldout_ids if evaluating else data.train_ids
        pool["stop_id"] = None if stop is None else _one_token(data, stop)
        pool["reward"] = build_reward(config["reward"], pool)
    elif isinstance(data, Pairs):
        part = data.heldout if evaluating else data.train
        pool |= {"prompts": part.prompts, "references": part.references, "stop_id": data.stop_id}
        pool["longest_prompt"] = data.longest_prompt
        pool["reward"] = build_reward(config["reward"], pool)
    env: Environment = assemble(node, pool, "env")
    return env


def _wrong_log(config: Config, is_log: bool) -> str:
    """The environment or the data is of a log alone, and the other is not."""
    env, data = (named(config, group) for group in ("env", "data"))
    if is_log:
        return f"data={data} is a log to learn from alone, and env={env} is a task of another kind; set env=logged"
    return (
        f"env={env} learns from a log alone, which data={data} does not give: set data=logged data.path=FILE.jsonl (+experiment="
        "logged sets both)"
    )


def _wrong_data(config: Config, on_text: bool, on_pairs: bool, on_answers: bool) -> str:
    """What the environment plays on, and what the data is instead."""
    name = named(config, "env")
    if on_text:
        return (
            f"env={name} plays on a text, but data={named(config, 'data')} is none; set data=tiny_shakespeare, data=text_file "
            "data.path=FILE, or data=bundled"
        )
    if on_pairs:
        return (
            f"env={name} answers prompts, but data={named(config, 'data')} holds none; set data=translation, data=replies or "
            "data=translation_jsonl with data.path, or data=translation_hub with data.name"
        )
    if on_answers:
        return (
            f"data={named(config, 'data')} is prompts with answers, which env={name} does not read; set env=translation"
        )
    return (
        f"env={name} brings its own tasks, and a text (data={named(config, 'data')}) would be read by nothing; set data=none, "
        "or data=trajectories data.path=FILE to learn from logged episodes"
    )


def build_reward(node: Config, pool: dict[str, Any]) -> Reward:
    """A reward with what it asks for by name: num_actions, tokenizer, stop_id, train_ids; a mixture's parts likewise.

    Raises:
        UserError: it asks for something that this run has not, or refuses a setting.
    """
    pool = pool | {"build_part": lambda part: build_reward(part, pool)}
    reward: Reward = assemble(node, pool, "reward")
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
    tokenizer = tokenizers.CharacterTokenizer(env.alphabet)
    assert tokenizer.characters == env.alphabet, "an alphabet is sorted by code point, so that ids are places in it"
    return tokenizer


def build_head(config: Config, env: Environment) -> Head:
    """The meaning of the network's raw numbers, with the return's bounds."""
    bounds = env.return_bounds(config["learner"]["gamma"])
    return head_for(config, bounds, _is_match(config, env, bounds))


def head_for(config: Config, bounds: Bounds, probability_of_match: bool) -> Head:
    """As `build_head`, without an environment."""
    head: Head = assemble(config["head"], {"bounds": bounds, "probability_of_match": probability_of_match}, "head")
    return head


def _is_match(config: Config, env: Environment, bounds: Bounds) -> bool:
    """Q is the probability of being the rewarded action where no later reward is added to that of the match."""
    on_text = hasattr(env, "reward")
    return on_text and pays_only_the_match(config["reward"]) and tuple(bounds) == (0.0, 1.0)


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


def build_objectives(config: Config, env: Environment, head: Head) -> dict[str, Objective]:
    """The objectives of a run; those that learn from rewards get what they need of the environment."""
    reward_all: Callable[[Tensor], Tensor] | None = None
    if config["learner"]["feedback"] == "all_actions":
        reward_all = lambda observation_BS: env.reward.all_actions(observation_BS[:, 1:])  # type: ignore[attr-defined]  # noqa: E731
    pool: dict[str, Any] = {
        "head": head, "legal": env.legal, "reward_all": reward_all,
        "bootstrap": assemble(config["bootstrap"], {}, "bootstrap"),
        "returns": assemble(config["returns"], {}, "returns"),
        "values_matter": config["learner"]["gamma"] > 0 or env.interleaved,
        # A window around a single decision ends with it: the observation after it has a value unless the episode ended.
        "interleaved": env.interleaved,
        "last_has_value": env.cuts_rows or config["buffer"].get("sample") == "transitions",
    }  # fmt: skip
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
