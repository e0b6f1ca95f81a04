"""Random walks to a goal (Chen et al. 2021; the variant of trlx): learning short paths from random walks.

A directed graph has 21 nodes, `a` to `u`; `a` is the goal. A walk is a text of nodes; its length counts them, the first
included. A walk is read from the left: at the first step along no edge, or at an unknown letter, it is invalid; at the
first `a` it is at the goal, and what follows is ignored. A walk that is invalid, or not at the goal after 10 nodes, has
length 10. Its reward is its optimality,

    (10 - length) / (10 - shortest length from its start),

1 for a shortest path and 0 for an invalid walk. A `Size` names other numbers than 21 and 10, and another way to draw edges.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.random import RandomState

from dqnlm.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
FIRST_IDEOGRAPH = 0x4E00  # the characters of the nodes after the 26th; thousands follow one another, each a printable letter
MOST_NODES = 5000  # the table of edges has the square
GOAL = 0
EDGE_PROBABILITY = 0.1
LOGGED_WALKS = 1000
MAX_SEED = 2**32 - 1
MOST_DRAWS = 100  # of a graph in which every node shall have a path

Array = np.ndarray[Any, Any]


class Size(NamedTuple):
    """How large a graph and its walks are, and how its edges are drawn; as it stands, the published task.

    Attributes:
        nodes: of the graph, the goal included.
        max_nodes: in a walk.
        out_degree: edges that leave each node but the goal, to different nodes, every one of which then has a path to the
            goal that is short enough; None: each edge is there with probability 0.1, as published.
    """

    nodes: int = 21
    max_nodes: int = 10
    out_degree: int | None = None

    def check(self, group: str) -> None:
        """Raises UserError for a number that cannot be; `group` is where the settings stand."""
        ranges = {"nodes": (2, MOST_NODES), "max_nodes": (2, MOST_NODES), "out_degree": (1, self.nodes - 1)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UserError(f"{group}.{name} is {value}; it must be from {least} to {most}")


PUBLISHED = Size()


def alphabet(nodes: int) -> str:
    """A character for each node, sorted by code point: a to z, then ideographs."""
    return LETTERS[:nodes] + "".join(map(chr, range(FIRST_IDEOGRAPH, FIRST_IDEOGRAPH + max(nodes - len(LETTERS), 0))))


ALPHABET = alphabet(PUBLISHED.nodes)


class Graph(NamedTuple):
    """A graph and its shortest paths.

    Attributes:
        adjacency_NN: bool, row = from, column = to; the goal's only edge leads to itself.
        shortest_N: nodes on the shortest path from each node to the goal, both counted; `max_nodes` at most, also where
            there is no path.
        max_nodes: in a walk.
    """

    adjacency_NN: Array
    shortest_N: Array
    max_nodes: int = PUBLISHED.max_nodes

    @property
    def alphabet(self) -> str:
        """The character of each node."""
        return alphabet(len(self.shortest_N))

    def edges(self) -> list[tuple[str, str]]:
        """(from, to) of every edge, in the order of the alphabet, the goal's loop included."""
        letters = self.alphabet
        return [(letters[i], letters[j]) for i, j in zip(*self.adjacency_NN.nonzero(), strict=True)]

    def worth(self) -> Array:
        """worth_NL: the optimality of a walk from node N that has L nodes at the goal; 0 where even the shortest is too long."""
        spared_L = self.max_nodes - np.arange(self.max_nodes + 1, dtype=np.float64)
        best_N = self.max_nodes - self.shortest_N.astype(np.float64)
        return np.where(best_N[:, None] > 0, spared_L / best_N.clip(min=1)[:, None], 0.0)

    def optimality(self, start: str, text: str) -> float:
        """The optimality of the walk `start` + `text`, in [0, 1]; 0 if the start has no path that is short enough.

        Args:
            start: one letter of the alphabet.
            text: any text, the nodes after the start.
        """
        letters = self.alphabet
        node, length = letters.index(start), 1
        for letter in text:
            there = letters.find(letter)
            if node == GOAL or there < 0 or not self.adjacency_NN[node, there]:
                break
            node, length = there, length + 1
        length = length if node == GOAL else self.max_nodes
        best = int(self.shortest_N[letters.index(start)])
        return max(self.max_nodes - length, 0) / (self.max_nodes - best) if best < self.max_nodes else 0.0


def make_graph(seed: int, size: Size = PUBLISHED) -> Graph:
    """The graph of a seed, in [0, 2^32).

    Raises:
        UserError: no graph of the size was found in which every node has a path.
    """
    return _draw_graph(RandomState(seed), size)


def logged_walks(seed: int, walks: int = LOGGED_WALKS, size: Size = PUBLISHED) -> list[tuple[str, str, float]]:
    """Random walks on the graph of the same seed: (start, the nodes after it, optimality). More walks extend fewer.

    Raises:
        UserError: as `make_graph`.
    """
    random = RandomState(seed)
    graph = _draw_graph(random, size)  # from the same stream, before the walks
    if size.out_degree is not None:
        return _draw_walks(random, graph, walks, size.out_degree)
    texts = [_draw_walk(random, graph) for _ in range(walks)]
    return [(text[0], text[1:], graph.optimality(text[0], text[1:])) for text in texts]


def _draw_graph(random: RandomState, size: Size) -> Graph:
    """Draws edges until every node but the goal has an edge to another node; with an out-degree, a path that is short enough."""
    for _ in range(MOST_DRAWS if size.out_degree is not None else MAX_SEED):
        drawn_NN = random.rand(size.nodes, size.nodes)
        if size.out_degree is None:
            adjacency_NN = drawn_NN > 1 - EDGE_PROBABILITY
            np.fill_diagonal(adjacency_NN, False)
        else:
            np.fill_diagonal(drawn_NN, 2.0)  # no node is among its own nearest
            adjacency_NN = np.zeros_like(drawn_NN, dtype=bool)
            np.put_along_axis(adjacency_NN, drawn_NN.argsort(1)[:, : size.out_degree], True, 1)
        if not adjacency_NN.any(1).all():
            continue
        adjacency_NN[GOAL] = False
        adjacency_NN[GOAL, GOAL] = True
        graph = Graph(adjacency_NN, shortest_lengths(adjacency_NN, size.max_nodes), size.max_nodes)
        if size.out_degree is None or (graph.shortest_N < size.max_nodes).all():
            return graph
    raise UserError(
        f"no graph of {size.nodes:,} nodes with {size.out_degree} edges each was found in {MOST_DRAWS} in which every node has "
        f"a path to the goal of fewer than {size.max_nodes} nodes; set env.out_degree or env.max_nodes higher"
    )


def _draw_walk(random: RandomState, graph: Graph) -> str:
    """Draws a walk from a random node that is not the goal, along random edges."""
    node = GOAL
    while node == GOAL:
        node = int(random.randint(len(graph.shortest_N)))
    nodes = [node]
    while nodes[-1] != GOAL and len(nodes) < graph.max_nodes:
        nodes.append(int(random.choice(graph.adjacency_NN[nodes[-1]].nonzero()[0])))
    letters = graph.alphabet
    return "".join(letters[node] for node in nodes)


def _draw_walks(random: RandomState, graph: Graph, walks: int, out_degree: int) -> list[tuple[str, str, float]]:
    """Draws all walks at once; each takes `max_nodes` numbers of the stream, so more of them extend fewer."""
    letters, worth_NL = graph.alphabet, graph.worth()
    nodes = len(letters)
    ends_ND = graph.adjacency_NN.argsort(1, kind="stable")[:, -out_degree:]  # where the edges of each node lead
    ends_ND[GOAL] = GOAL
    drawn_WL = random.rand(walks, graph.max_nodes)
    node_WL = np.empty(drawn_WL.shape, dtype=np.int64)
    node_WL[:, 0] = 1 + (drawn_WL[:, 0] * (nodes - 1)).astype(np.int64)
    for place in range(1, graph.max_nodes):
        node_WL[:, place] = ends_ND[node_WL[:, place - 1], (drawn_WL[:, place] * out_degree).astype(np.int64)]
    arrived_WL = node_WL == GOAL
    length_W = np.where(arrived_WL.any(1), arrived_WL.argmax(1) + 1, graph.max_nodes)
    found = []
    for walk in range(walks):
        node_L, length = node_WL[walk].tolist(), int(length_W[walk])
        text = "".join([letters[node] for node in node_L[:length]])
        found.append((text[0], text[1:], float(worth_NL[node_L[0], length])))
    return found


def shortest_lengths(adjacency_NN: Array, max_nodes: int = PUBLISHED.max_nodes) -> Array:
    """Nodes from each node to the goal, by breadth-first search from the goal backwards; `max_nodes` at most."""
    shortest_N = np.full(len(adjacency_NN), max_nodes)
    reached_N = np.zeros(len(adjacency_NN), dtype=bool)
    reached_N[GOAL] = True
    for length in range(1, max_nodes):
        shortest_N[reached_N] = np.minimum(shortest_N[reached_N], length)
        reached_N = reached_N | adjacency_NN[:, reached_N].any(1)
    return shortest_N


def best_optimality(graph: Graph) -> float:
    """Mean over the starts of the best optimality: 1 where every start has a path that is short enough."""
    return float((graph.shortest_N[GOAL + 1 :] < graph.max_nodes).mean())


def uniform_optimality(graph: Graph) -> float:
    """Mean over the starts of the expected optimality when each edge of a node is taken with equal chance, exactly.

    From a start, with walks of M nodes, E[M - length] = sum over k = 0 .. M - 2 of Pr(at the goal after k steps)
    = sum_k (P^k)[start, goal].
    """
    step_NN = graph.adjacency_NN / graph.adjacency_NN.sum(1, keepdims=True)
    there_N = np.eye(1, len(step_NN), GOAL)[0]  # Pr(at the goal after k steps), for each start
    spared_N = np.zeros(len(step_NN))
    for _ in range(graph.max_nodes - 1):
        spared_N += there_N
        there_N = step_NN @ there_N
    best_N = graph.max_nodes - graph.shortest_N
    optimality_N = np.divide(spared_N, best_N, out=np.zeros(len(step_NN)), where=best_N > 0)
    return float(optimality_N[GOAL + 1 :].mean())
