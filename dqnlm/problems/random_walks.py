"""Random walks to a goal (Chen et al. 2021; the variant of trlx): learning short paths from random walks.

A directed graph has 21 nodes, `a` to `u`; `a` is the goal. A walk is a text of nodes; its length counts them, the first
included. A walk is read from the left: at the first step along no edge, or at an unknown letter, it is invalid; at the
first `a` it is at the goal, and what follows is ignored. A walk that is invalid, or not at the goal after 10 nodes, has
length 10. Its reward is its optimality,

    (10 - length) / (10 - shortest length from its start),

1 for a shortest path and 0 for an invalid walk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.random import RandomState

ALPHABET = "abcdefghijklmnopqrstu"
NODES = len(ALPHABET)
GOAL = 0
MAX_NODES = 10  # in a walk
EDGE_PROBABILITY = 0.1
LOGGED_WALKS = 1000
MAX_SEED = 2**32 - 1

Array = np.ndarray[Any, Any]


class Graph(NamedTuple):
    """A graph and its shortest paths.

    Attributes:
        adjacency_NN: bool, row = from, column = to; the goal's only edge leads to itself.
        shortest_N: nodes on the shortest path from each node to the goal, both counted; `MAX_NODES` at most, also where
            there is no path.
    """

    adjacency_NN: Array
    shortest_N: Array

    def edges(self) -> list[tuple[str, str]]:
        """(from, to) of every edge, in the order of the alphabet, the goal's loop included."""
        return [(ALPHABET[i], ALPHABET[j]) for i, j in zip(*self.adjacency_NN.nonzero(), strict=True)]

    def optimality(self, start: str, text: str) -> float:
        """The optimality of the walk `start` + `text`, in [0, 1]; 0 if the start has no path shorter than 10 nodes.

        Args:
            start: one letter of the alphabet.
            text: any text, the nodes after the start.
        """
        node, length = ALPHABET.index(start), 1
        for letter in text:
            there = ALPHABET.find(letter)
            if node == GOAL or there < 0 or not self.adjacency_NN[node, there]:
                break
            node, length = there, length + 1
        length = length if node == GOAL else MAX_NODES
        best = int(self.shortest_N[ALPHABET.index(start)])
        return max(MAX_NODES - length, 0) / (MAX_NODES - best) if best < MAX_NODES else 0.0


def make_graph(seed: int) -> Graph:
    """The graph of a seed, in [0, 2^32)."""
    return _draw_graph(RandomState(seed))


def logged_walks(seed: int, walks: int = LOGGED_WALKS) -> list[tuple[str, str, float]]:
    """Random walks on the graph of the same seed: (start, the nodes after it, optimality). More walks extend fewer."""
    random = RandomState(seed)
    graph = _draw_graph(random)  # from the same stream, before the walks
    texts = [_draw_walk(random, graph.adjacency_NN) for _ in range(walks)]
    return [(text[0], text[1:], graph.optimality(text[0], text[1:])) for text in texts]


def _draw_graph(random: RandomState) -> Graph:
    """Draws edges until every node but the goal has an edge to another node."""
    while True:
        adjacency_NN = random.rand(NODES, NODES) > 1 - EDGE_PROBABILITY
        np.fill_diagonal(adjacency_NN, False)
        if adjacency_NN.any(1).all():
            break
    adjacency_NN[GOAL] = False
    adjacency_NN[GOAL, GOAL] = True
    return Graph(adjacency_NN, shortest_lengths(adjacency_NN))


def _draw_walk(random: RandomState, adjacency_NN: Array) -> str:
    """Draws a walk from a random node that is not the goal, along random edges."""
    node = GOAL
    while node == GOAL:
        node = int(random.randint(NODES))
    nodes = [node]
    while nodes[-1] != GOAL and len(nodes) < MAX_NODES:
        nodes.append(int(random.choice(adjacency_NN[nodes[-1]].nonzero()[0])))
    return "".join(ALPHABET[node] for node in nodes)


def shortest_lengths(adjacency_NN: Array) -> Array:
    """Nodes from each node to the goal, by breadth-first search from the goal backwards; `MAX_NODES` at most."""
    shortest_N = np.full(NODES, MAX_NODES)
    reached_N = np.zeros(NODES, dtype=bool)
    reached_N[GOAL] = True
    for length in range(1, MAX_NODES):
        shortest_N[reached_N] = np.minimum(shortest_N[reached_N], length)
        reached_N = reached_N | adjacency_NN[:, reached_N].any(1)
    return shortest_N


def best_optimality(graph: Graph) -> float:
    """Mean over the 20 starts of the best optimality: 1 where every start has a path shorter than 10 nodes."""
    return float((graph.shortest_N[GOAL + 1 :] < MAX_NODES).mean())


def uniform_optimality(graph: Graph) -> float:
    """Mean over the 20 starts of the expected optimality when each edge of a node is taken with equal chance, exactly.

    From a start, E[10 - length] = sum over k = 0 .. 8 of Pr(at the goal after k steps) = sum_k (P^k)[start, goal].
    """
    step_NN = graph.adjacency_NN / graph.adjacency_NN.sum(1, keepdims=True)
    there_N = np.eye(NODES)[GOAL]  # Pr(at the goal after k steps), for each start
    spared_N = np.zeros(NODES)
    for _ in range(MAX_NODES - 1):
        spared_N += there_N
        there_N = step_NN @ there_N
    best_N = MAX_NODES - graph.shortest_N
    optimality_N = np.divide(spared_N, best_N, out=np.zeros(NODES), where=best_N > 0)
    return float(optimality_N[GOAL + 1 :].mean())
