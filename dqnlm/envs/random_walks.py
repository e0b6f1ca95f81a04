"""Random walks: the agent writes the nodes of a walk to the goal of a graph, one per decision (see `dqnlm.tasks`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dqnlm.envs.base import StepEnvironment
from dqnlm.errors import UserError
from dqnlm.problems.random_walks import GOAL, MAX_SEED, Size, best_optimality, make_graph, uniform_optimality
from dqnlm.types import DECISION, TERMINATED, Bounds, TaskSpec, TimeStep
from dqnlm.utils.context import RunContext


class RandomWalks(StepEnvironment):
    """Walks on one graph. An observation is the node last written; the row holds the walk so far.

    An episode starts at a uniform node that is not the goal, and terminates at the goal, at a step along no edge, or at
    `max_nodes` nodes. Only the step that reaches the goal is rewarded, with the walk's optimality.

    Args:
        device: where everything lives.
        seed: of the generator that draws the starts.
        evaluating: copy i starts every episode at node 1 + i modulo `nodes` - 1.
        num_envs: E, walks at once.
        graph_seed: of the graph; the logged walks of the same seed and size are walks on it.
        nodes: of the graph, an action each.
        max_nodes: in a walk.
        out_degree: edges that leave each node; None: each edge is there with probability 0.1.
        legal_moves_only: only neighbours of the node may be chosen.

    Raises:
        UserError: a number out of range.
    """

    def __init__(
        self,
        device: torch.device,
        seed: int,
        evaluating: bool,
        *,
        num_envs: int,
        graph_seed: int,
        nodes: int,
        max_nodes: int,
        out_degree: int | None,
        legal_moves_only: bool,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"env.num_envs is {num_envs}; it must be 1 or more")
        if not 0 <= graph_seed <= MAX_SEED:
            raise UserError(f"env.graph_seed is {graph_seed}; it must be from 0 to {MAX_SEED}")
        self.size = Size(nodes, max_nodes, out_degree)
        self.size.check("env")
        self.device = torch.device(device)
        self.num_envs = num_envs
        self.graph, self.graph_seed = make_graph(graph_seed, self.size), graph_seed
        self.spec = TaskSpec(
            num_actions=nodes, num_tokens=nodes, alphabet=self.graph.alphabet, row_transitions=max_nodes - 1,
            episode_steps=max_nodes - 1, stores_actions=False, deterministic=True,
        )  # fmt: skip
        self.evaluating, self.legal_moves_only = evaluating, legal_moves_only
        self._adjacency_NN = torch.from_numpy(self.graph.adjacency_NN).to(self.device)
        self._worth_NL = torch.from_numpy(self.graph.worth()).float().to(self.device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._listed_E = 1 + torch.arange(num_envs, device=self.device) % (nodes - 1)
        self._start_E, self._node_E = self._listed_E, self._listed_E
        self._length_E = torch.ones_like(self._listed_E)

    def check(self, context: RunContext) -> None:
        """See `Environment.check`.

        Raises:
            UserError: the logged walks are walks on another graph.
        """
        for name, own in {"graph_seed": self.graph_seed, **self.size._asdict()}.items():
            logged = context.data.get(name, own)
            if logged != own:
                raise UserError(f"data.{name}={logged} logs walks of another graph than env.{name}={own}; leave it out")

    def reset(self) -> Tensor:
        self._start_E = self._node_E = self._draw_starts()
        self._length_E = torch.ones_like(self._length_E)
        return self._node_E

    def _draw_starts(self) -> Tensor:
        if self.evaluating:
            return self._listed_E
        return torch.randint(1, self.size.nodes, (self.num_envs,), generator=self._generator, device=self.device)

    def step(self, action_E: Tensor) -> TimeStep:
        length_E = self._length_E + 1
        legal_E = self._adjacency_NN[self._node_E, action_E]
        arrived_E = legal_E & (action_E == GOAL)
        row_end_E = ~legal_E | arrived_E | (length_E == self.size.max_nodes)
        reward_E = torch.where(arrived_E, self._worth_NL[self._start_E, length_E], 0.0)
        flag_E = (DECISION + row_end_E * TERMINATED).to(torch.uint8)
        # Starts are drawn for all at every step, so nobody asks who needs one.
        self._start_E = torch.where(row_end_E, self._draw_starts(), self._start_E)
        self._node_E = torch.where(row_end_E, self._start_E, action_E)
        self._length_E = torch.where(row_end_E, 1, length_E)
        return TimeStep(action_E, reward_E, flag_E, row_end_E, self._node_E, row_end_E)

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        """With `legal_moves_only` the neighbours of each node, legal_BSA (of the goal: itself); else None."""
        return self._adjacency_NN[observation_BS] if self.legal_moves_only else None

    def return_bounds(self, gamma: float) -> Bounds:
        return Bounds(0.0, 1.0)

    @property
    def reward_bounds(self) -> Bounds:
        return Bounds(0.0, 1.0)

    def references(self) -> dict[str, float]:
        """The best walks, and those that take each edge of a node with equal chance: mean over the starts."""
        return {"optimal": best_optimality(self.graph), "uniform": uniform_optimality(self.graph)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "start_E": self._start_E,
            "node_E": self._node_E,
            "length_E": self._length_E,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["node_E"].shape != self._node_E.shape:
            raise ValueError(f"saved walks of {len(state['node_E'])} copies; this environment has {self.num_envs}")
        self._start_E, self._node_E = state["start_E"].to(self.device), state["node_E"].to(self.device)
        self._length_E = state["length_E"].to(self.device)
        self._generator.set_state(state["generator"].cpu())
