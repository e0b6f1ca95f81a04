"""A network is an encoder, a body and named outputs: tokens -> embeddings -> features -> raw outputs.

With a causal body ONE pass over o_0 .. o_{S-1} gives the outputs after every prefix. Acting reads the same function one
observation at a time: a body carries a state, and `step` after `step` equals `forward`.

Axes as in `dqnlm.types`; here `D` is the width going into a body, or its features coming out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dqnlm.errors import UserError
from dqnlm.networks.noisy import has_noise
from dqnlm.networks.projections import Linear, require_every_action
from dqnlm.networks.recorded_step import Recordings
from dqnlm.ops.masking import rows_where
from dqnlm.utils import cuda_graphs
from dqnlm.utils.context import RunContext
from dqnlm.utils.output_names import all_q
from dqnlm.utils.ranks import Ranks

State = dict[str, Tensor]


class TokenEncoder(nn.Module):
    """Embedding: one learned vector per token.

    Args:
        vocabulary_size: number of tokens.
        width: features a token, `body.width`.
        std: standard deviation of the first weights, `body.embedding_std`.
    """

    def __init__(self, vocabulary_size: int, width: int, std: float) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.width = width
        self.weight = nn.Parameter(torch.empty(vocabulary_size, width))
        nn.init.normal_(self.weight, std=std)

    def forward(self, observation_BS: Tensor) -> Tensor:
        """int64 or int32 token ids of any shape -> the same shape with one more axis, x_BSD."""
        return nn.functional.embedding(observation_BS, self.weight)


class OneHotEncoder(nn.Module):
    """One-hot encoding of tokens, without parameters.

    Args:
        num_tokens: number of tokens.
    """

    one: Tensor

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.register_buffer("one", torch.ones(()), persistent=False)  # knows the network's device and dtype

    def forward(self, observation_BS: Tensor) -> Tensor:
        """int64 or int32 token ids of any shape -> the same shape with one more axis, (..., num_tokens)."""
        zeros = self.one.new_zeros(*observation_BS.shape, self.num_tokens)
        return zeros.scatter_(-1, observation_BS.long()[..., None], 1.0)


class VectorEncoder(nn.Module):
    """x = relu(W o + b) of a vector of numbers, with torch's default initialization.

    Args:
        observation_size: F, numbers an observation.
        width: features out, `body.width`.
    """

    def __init__(self, observation_size: int, width: int) -> None:
        super().__init__()
        self.observation_size = observation_size
        self.width = width
        self.linear = nn.Linear(observation_size, width)

    def forward(self, observation_BSF: Tensor) -> Tensor:
        """(..., F) of any float type -> (..., width)."""
        return torch.relu(self.linear(observation_BSF.to(self.linear.weight.dtype)))


class Body(nn.Module, ABC):
    """Turns embeddings into features, causally: h[:, t] depends on x[:, 0] .. x[:, t] alone.

    Attributes:
        width: features in.
        features: features out.
        context: longest T (transitions) for which it is built.
        max_observations: hard limit on S in one forward, and on the steps between two resets; None where there is none.
        left_context: observations before the scored ones that it reads if they exist; above 0 for a window of fixed reach,
            which is trained on full windows. 0 for a body that starts each row without context.
        receptive_field: newest observations that its output depends on; None: all of the row.
        embedding_std: standard deviation of the initial embeddings.
        tie_weights: whether the `q` projection shares the encoder's matrix.
        is_recurrent: it carries a state that the first observations of a row warm up, so that `learner.burn_in` has a use.
        is_pretrained: its first weights are those of a trained language model.
        one_hot: it reads one-hot tokens (`OneHotEncoder`), and no vectors.
        steps_in_place: `step` updates the state's own tensors and does the same operations whatever they hold, so that it can
            be recorded on a device.
        shard: whether several processes divide its weights (`shard_weights`).
        recipe: plain values that a run saves with its weights to rebuild a pretrained model; None where the settings
            suffice.
    """

    width: int
    features: int
    context: int
    max_observations: int | None = None
    left_context: int = 0
    receptive_field: int | None = None
    embedding_std: float = 1.0
    tie_weights: bool = False
    is_recurrent: bool = False
    is_pretrained: bool = False
    one_hot: bool = False
    steps_in_place: bool = False
    shard: bool = False
    recipe: dict[str, Any] | None = None

    def check(self, context: RunContext) -> None:
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @classmethod
    def files_needed(cls, node: Mapping[str, Any]) -> tuple[str, ...]:
        """Settings of this part that name files which a run reads again, as its checkpoints do not make up for them.

        Args:
            node: the part's settings.
        """
        return ()

    def contents(self) -> dict[str, str]:
        """Setting that `files_needed` names -> sha256 of what was read, for the run's notes."""
        return {}

    def shard_weights(self, ranks: Ranks) -> None:
        """Divides the weights among the processes of the run where the settings ask for it; before a learner is built."""

    def make_encoder(self) -> nn.Module | None:
        """An encoder of its own, from observations to what `forward` reads; None: the one that fits the observations."""
        return None

    def make_outputs(
        self, names: tuple[str, ...], num_actions: int, make: Callable[[str], nn.Module]
    ) -> dict[str, nn.Module]:
        """The output layers by name; `make(name)` builds the configured one, which a body may initialize or replace."""
        del num_actions
        return {name: require_every_action(make(name)) for name in names}

    @abstractmethod
    def forward(self, x_BSD: Tensor, first: int = 0) -> Tensor:
        """Features for the times `first` .. S-1 only: h_B(S-first)D.

        Raises:
            UserError: S is above `max_observations`.
        """

    @abstractmethod
    def initial_state(self, num_envs: int, device: torch.device | str, dtype: torch.dtype) -> State:
        """The state before the first observation. Allocates all the memory that `step` will need.

        The first axis of each tensor is E, unless `step` updates it in place.
        """

    @abstractmethod
    def step(self, x_ED: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads one more observation in every environment: h_ED and the next state. May reuse the state's memory.
        """

    @abstractmethod
    def reset(self, state: State, mask_E: Tensor) -> State:
        """Resets the rows where `mask_E` (bool) is True, without device sync. May reuse the state's memory."""

    def prefill(self, x_ESD: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads many observations at once: h_ESD and the next state. `state` must be initial in every row."""
        outputs = []
        for x_ED in x_ESD.unbind(1):
            h_ED, state = self.step(x_ED, state)
            outputs.append(h_ED)
        return torch.stack(outputs, 1), state

    def prefill_apart(self, x_EPD: Tensor, length_E: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads the first `length_E` of P observations: h_ED after the last of them, and the next state.

        `state` must be initial in every row. A row that is done keeps its state: what `step` updates in place (a cache) holds
        more, which is never read and is overwritten later.
        """
        kept: Tensor | None = None
        for place, x_ED in enumerate(x_EPD.unbind(1)):
            now_E = place < length_E
            before = {name: value.clone() if value.dim() == 1 else value for name, value in state.items()}
            h_ED, after = self.step(x_ED, state)
            state = {name: rows_where(now_E, value, before[name]) for name, value in after.items()}
            kept = h_ED if kept is None else rows_where(now_E, h_ED, kept)
        assert kept is not None, "there is at least one observation"
        return kept, state


class QNetwork(nn.Module):
    """Encoder, body and named projections.

    Args:
        encoder: observation_BS, or vectors observation_BSF, -> x_BSD with D = body.width.
        body: x_BSD -> h_BSD.
        projections: name ("q", later "q2", "v", "policy"; of several rewards: `utils.output_names`) -> module from features
            to raw outputs (..., A, N).

    Raises:
        UserError: `body.tie_weights` where the `q` projection cannot share the encoder's matrix.
    """

    def __init__(self, encoder: nn.Module, body: Body, projections: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.body = body
        self.projections = nn.ModuleDict(projections)
        if body.tie_weights:
            _tie(encoder, body, projections)
        if body.one_hot:
            _drop_bias(projections)
            self.without_decay = tuple(name for name, _ in self.named_parameters())  # decay of values is a bias towards 0
        self._recordings = Recordings()
        self._records = body.steps_in_place and not has_noise(self)

    @property
    def context(self) -> int:
        """Longest T that the network is meant to read."""
        return self.body.context

    @property
    def max_observations(self) -> int | None:
        """Hard limit on S in one forward, and on the steps between two resets."""
        return self.body.max_observations

    @property
    def left_context(self) -> int:
        """Observations before the scored ones that the body reads where they are there."""
        return self.body.left_context

    @property
    def receptive_field(self) -> int | None:
        """Newest observations that the outputs depend on; None: all of the row."""
        return self.body.receptive_field

    def forward(self, observation_BS: Tensor, first: int = 0) -> dict[str, Tensor]:
        """Raw outputs for the times `first` .. S-1.

        Args:
            observation_BS: int64 token ids, or float vectors (B, S, F).
            first: first time of the outputs.

        Returns:
            {"q": raw_B(S-first)AN, ...}: N parameters an action, 1 for a scalar head.
        """
        return self.project(self.features(observation_BS, first))

    def features(self, observation_BS: Tensor, first: int = 0) -> Tensor:
        """The body's features of the observations, h_B(S-first)D; `project` of them is `forward`."""
        h_BSD: Tensor = self.body(self.encoder(observation_BS), first)
        return h_BSD

    def project(self, h_BSD: Tensor) -> dict[str, Tensor]:
        """h (..., D) -> raw outputs (..., A, N) by name."""
        return {name: projection(h_BSD) for name, projection in self.projections.items()}

    def learns(self, name: str) -> bool:
        """Whether some weight that this output depends on is learned."""
        parts = (self.encoder, self.body, self.projections[name])
        return any(parameter.requires_grad for part in parts for parameter in part.parameters())

    def initial_state(self, num_envs: int, device: torch.device | str, dtype: torch.dtype = torch.float32) -> State:
        """The state of `num_envs` environments before their first observation. On CUDA its steps are recorded once."""
        if not (self._records and cuda_graphs.can_record(device)):
            return self.body.initial_state(num_envs, device, dtype)
        key = (num_envs, str(device), dtype)
        return self._recordings.lend(self, key, lambda: self.body.initial_state(num_envs, device, dtype))

    @torch.no_grad()
    def step(self, observation_E: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """One more observation in every environment, without gradient: {"q": raw_EAN, ...} and the next state.

        The given state's memory may be reused: continue with the returned state.
        """
        recording = None if self.training else self._recordings.find(state)
        if recording is not None:
            return recording.run(self._step, self, observation_E), state
        return self._step(observation_E, state)

    def _step(self, observation_E: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        h_ED, state = self.body.step(self.encoder(observation_E), state)
        return self.project(h_ED), state

    @torch.no_grad()
    def prefill(self, observation_ES: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Reads S observations at once into an initial state, without gradient: {"q": raw_ESAN, ...}, next state."""
        h_ESD, state = self.body.prefill(self.encoder(observation_ES), state)
        return self.project(h_ESD), state

    @torch.no_grad()
    def prefill_apart(self, observation_EP: Tensor, length_E: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Reads rows of different lengths, right-padded, into an initial state: {"q": raw_EAN} after each row's last
        observation, and the next state. No gradient."""
        h_ED, state = self.body.prefill_apart(self.encoder(observation_EP), length_E, state)
        return self.project(h_ED), state

    @torch.no_grad()
    def reset(self, state: State, mask_E: Tensor) -> State:
        """Resets the rows where `mask_E` (bool) is True, without device sync."""
        return self.body.reset(state, mask_E)


def _tie(encoder: nn.Module, body: Body, projections: dict[str, nn.Module]) -> None:
    """Shares the encoder's matrix with the `q` projection, or raises UserError with the reason why it cannot."""
    projection = projections.get("q")
    if projection is None:
        problem = f"there are several Q-functions ({', '.join(all_q(projections))})"
    elif not isinstance(encoder, TokenEncoder):
        problem = f"observations are read by {type(encoder).__name__}, which has no matrix of tokens"
    elif not isinstance(projection, Linear):
        problem = f"the q projection is {type(projection).__name__}; set projection=linear"
    elif projection.num_parameters != 1:
        problem = f"the head has {projection.num_parameters} outputs an action; set head=scalar"
    elif body.features != encoder.width:
        problem = f"the body gives {body.features} features and the embedding has {encoder.width}"
    elif projection.num_actions != encoder.vocabulary_size:
        problem = f"there are {projection.num_actions} actions and {encoder.vocabulary_size} observed tokens"
    else:
        projection.linear.weight = encoder.weight
        return
    raise UserError(
        f"network.tie_weights=true shares one matrix between the embedding and q, but {problem}; else set "
        "network.tie_weights=false"
    )


def _drop_bias(projections: dict[str, nn.Module]) -> None:
    """Drops the bias: each matrix column belongs to one token, but an update of a bias would affect all tokens."""
    for projection in projections.values():
        if isinstance(projection, Linear):
            projection.linear.register_parameter("bias", None)
