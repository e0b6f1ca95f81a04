"""The random-walks task against the published files and facts, and the environment against the task."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqnlm.envs.random_walks import RandomWalks
from dqnlm.errors import UserError
from dqnlm.problems.random_walks import (
    ALPHABET,
    PUBLISHED,
    Graph,
    Size,
    alphabet,
    best_optimality,
    logged_walks,
    make_graph,
    shortest_lengths,
    uniform_optimality,
)
from dqnlm.types import DECISION, TERMINATED, Bounds
from tests.envs import test_environment
from tests.helpers.environments import NoHostSynchronisation, episodes

NODES = PUBLISHED.nodes
WRONG_SIZES = [("nodes", 1), ("nodes", 5001), ("max_nodes", 1), ("out_degree", 0), ("out_degree", 21)]
LARGE = Size(nodes=400, max_nodes=40, out_degree=2)
SEEDS = pytest.mark.parametrize("seed", [1000, 1002])


def walks(seed: int = 0, evaluating: bool = False, **options: Any) -> RandomWalks:
    settings = {"num_envs": 40, "graph_seed": 1000, "legal_moves_only": False, **PUBLISHED._asdict()} | options
    return RandomWalks(torch.device("cpu"), seed, evaluating, **settings)


def graph_of(*edges: str) -> Graph:
    """A graph with these edges and the goal's loop; nodes that are not named have none."""
    adjacency_NN = np.zeros((NODES, NODES), dtype=bool)
    for start, end in ("aa", *edges):
        adjacency_NN[ALPHABET.index(start), ALPHABET.index(end)] = True
    return Graph(adjacency_NN, shortest_lengths(adjacency_NN))


def published(name: str) -> str:
    folder = os.environ.get("DQNLM_DATA_DIR")
    if not folder or not (Path(folder) / "randomwalks" / name).is_file():
        pytest.skip(f"needs randomwalks/{name} in the folder that DQNLM_DATA_DIR names")
    return (Path(folder) / "randomwalks" / name).read_text()


@SEEDS
def test_graph_and_walks_are_those_published(seed: int) -> None:
    """Bug: another order of random draws, so that results cannot be compared with anybody's."""
    file = json.loads(published(f"graph_{seed}.json"))
    assert make_graph(seed).edges() == [tuple(edge) for edge in file["edges"]]
    lines = [json.loads(line) for line in published(f"walks_{seed}.jsonl").splitlines()]
    found = logged_walks(seed)
    assert [walk[:2] for walk in found] == [(line["prompt"], line["completion"]) for line in lines]
    # The files give optimality to 6 digits.
    assert [walk[2] for walk in found] == pytest.approx([line["reward"] for line in lines], abs=1e-6)


@pytest.mark.parametrize(
    ("seed", "edges", "shortest", "mean", "uniform", "best"),
    [(1000, 51, 3.65, 0.3515, 0.3462, 0.9917), (1002, 42, 3.55, 0.790, 0.785, 1.0)],
)
def test_facts_of_the_graphs(seed: int, edges: int, shortest: float, mean: float, uniform: float, best: float) -> None:
    """Bug: a length that counts steps for nodes, or a mean over 21 starts: all figures move. (Facts of the data's README.)"""
    graph, data = make_graph(seed), logged_walks(seed)
    assert len(graph.edges()) - 1 == edges  # without the goal's loop
    assert graph.shortest_N[1:].mean() == pytest.approx(shortest)
    assert len(data) == 1000 and np.mean([walk[2] for walk in data]) == pytest.approx(mean, abs=1e-3)
    assert uniform_optimality(graph) == pytest.approx(uniform, abs=1e-3)
    best_found = [max(worth for start, _, worth in data if start == letter) for letter in ALPHABET[1:]]
    assert np.mean(best_found) == pytest.approx(best, abs=1e-4)
    assert best_optimality(graph) == 1.0
    assert logged_walks(seed, 7) == data[:7]


@pytest.mark.parametrize(
    ("start", "text", "worth"),
    [
        ("b", "a", 8 / 8),  # 2 nodes, the shortest from b
        ("c", "ba", 7 / 7),
        ("c", "dba", 6 / 7),  # 4 nodes where 3 do
        ("c", "baca?", 7 / 7),  # what follows the goal is ignored
        ("c", "a", 0.0),  # no such edge
        ("c", "b", 0.0),  # never at the goal
        ("c", "", 0.0),
        ("c", "?ba", 0.0),  # an unknown letter
        ("c", "bba", 0.0),  # no node has an edge to itself
        ("c", "d" + "cd" * 3 + "ba", 0.0),  # 10 nodes: (10 - 10) / 7
        ("c", "d" + "cd" * 2 + "ba", 2 / 7),  # 8 nodes
        ("c", "d" + "cd" * 4 + "ba", 0.0),  # 12 nodes: too long
        ("e", "a", 0.0),  # from e there is no path
        ("a", "", 9 / 9),  # the goal itself: 1 node
    ],
)
def test_optimality_by_hand(start: str, text: str, worth: float) -> None:
    """Bug: a walk judged by its text's length, or read beyond its end. Edges b-a, c-b, c-d, d-b, d-c: shortest 2, 3, 3."""
    graph = graph_of("ba", "cb", "cd", "db", "dc")
    assert graph.shortest_N[:5].tolist() == [1, 2, 3, 3, 10]
    assert graph.optimality(start, text) == pytest.approx(worth)


@pytest.mark.parametrize("seed", [0, 1, 1000])
def test_shortest_lengths_against_relaxation(seed: int) -> None:
    """Bug: edges followed the wrong way. Oracle: d(s) = 1 + min over neighbours, repeated (Bellman-Ford)."""
    graph = make_graph(seed)
    d = [1.0] + [float("inf")] * (NODES - 1)
    for _ in range(NODES):
        for start, end in graph.edges():
            i, j = ALPHABET.index(start), ALPHABET.index(end)
            d[i] = min(d[i], 1 + d[j]) if i else 1.0
    assert graph.shortest_N.tolist() == [min(x, 10) for x in d]
    assert not graph.adjacency_NN[1:].diagonal(1).any() and graph.adjacency_NN.any(1).all()


def test_uniform_optimality_against_all_walks() -> None:
    """Bug: one step too many or too few in the matrix powers. Oracle: every walk with its probability."""
    graph = make_graph(1002)

    def expected(walk: str) -> float:
        if walk[-1] == "a" or len(walk) == 10:
            return graph.optimality(walk[0], walk[1:])
        neighbours = [end for start, end in graph.edges() if start == walk[-1]]
        return sum(expected(walk + end) for end in neighbours) / len(neighbours)

    assert uniform_optimality(graph) == pytest.approx(sum(expected(start) for start in ALPHABET[1:]) / 20, abs=1e-12)


def test_a_start_without_a_path() -> None:
    """Bug: a division by zero where no path is shorter than 10 nodes. Only b can arrive: both means are 1/20."""
    graph = graph_of("ba", *(f"{letter}{letter}" for letter in ALPHABET[2:]))
    assert uniform_optimality(graph) == best_optimality(graph) == pytest.approx(1 / 20)


@pytest.mark.parametrize(("nodes", "max_nodes", "degree"), [(400, 40, 2), (30, 12, 3), (2, 3, 1), (27, 8, 26)])
def test_graphs_with_an_out_degree(nodes: int, max_nodes: int, degree: int) -> None:
    """Bug: an edge to oneself or two to one node, a node without a way; distances of another graph. Oracle: Bellman-Ford."""
    size = Size(nodes, max_nodes, degree)
    graph, letters = make_graph(5, size), alphabet(nodes)
    assert letters == "".join(sorted(set(letters))) and len(letters) == nodes and letters.startswith("ab")
    assert (graph.adjacency_NN[1:].sum(1) == degree).all() and not graph.adjacency_NN[1:, 1:].diagonal().any()
    assert graph.adjacency_NN[0].nonzero()[0].tolist() == [0] and best_optimality(graph) == 1
    d = [1.0] + [float("inf")] * (nodes - 1)
    for _ in range(max_nodes):
        d = [1.0, *(1 + min(d[j] for j in graph.adjacency_NN[i].nonzero()[0]) for i in range(1, nodes))]
    assert graph.shortest_N.tolist() == d and max(d) < max_nodes
    assert (make_graph(6, size).adjacency_NN != graph.adjacency_NN).any() == (degree < nodes - 1)


def test_logged_walks_on_a_large_graph() -> None:
    """Bug: a step along no edge or always along the first, a walk beyond the goal, a reward of another rule; more walks that
    change the first. Oracles: Graph.optimality of each text, and the exact mean of uniform walks (three standard errors)."""
    graph, data = make_graph(7, LARGE), logged_walks(7, 6000, LARGE)
    assert logged_walks(7, 11, LARGE) == data[:11] and len(data) == 6000
    edges, goal = set(graph.edges()), alphabet(400)[0]
    for start, text, worth in data:
        assert start != goal and goal not in text[:-1] and set(itertools.pairwise(start + text)) <= edges
        assert len(text) == 39 or text[-1] == goal
        assert worth == pytest.approx(graph.optimality(start, text))
    found = np.array([worth for *_, worth in data])
    assert found.mean() == pytest.approx(uniform_optimality(graph), abs=3 * found.std() / 6000**0.5)
    used = {pair for start, text, _ in data for pair in itertools.pairwise(start + text)}
    assert used == edges - {(goal, goal)} and {start for start, *_ in data} == set(alphabet(400)[1:])


def test_no_graph_of_a_size_that_cannot_be() -> None:
    """Bug: an endless search. With one edge a node a way of two nodes from each of 50 is as good as impossible."""
    with pytest.raises(UserError, match=r"no graph of 50 nodes with 1 edges.*env\.out_degree"):
        make_graph(0, Size(50, 3, 1))


@pytest.mark.parametrize(("seed", "size"), [(1000, PUBLISHED), (1002, PUBLISHED), (7, Size(30, 10, 2))])
def test_episodes_earn_the_optimality_of_their_text(seed: int, size: Size) -> None:
    """Bug: an environment with other rules than the data. Oracle: Graph.optimality of the text written."""
    env, chooser = walks(graph_seed=seed, **size._asdict()), torch.Generator().manual_seed(1)
    letters = alphabet(size.nodes)
    adjacency_NN = torch.from_numpy(env.graph.adjacency_NN).float()
    node_E = first_E = env.reset()
    actions, steps = [], []
    for _ in range(60):  # 19 of 20 steps along an edge
        legal_E = torch.multinomial(adjacency_NN[node_E], 1, generator=chooser).squeeze(1)
        any_E = torch.randint(size.nodes, (env.num_envs,), generator=chooser)
        action_E = torch.where(torch.rand(env.num_envs, generator=chooser) < 0.95, legal_E, any_E)
        with NoHostSynchronisation():
            steps.append(env.step(action_E))
        actions.append(action_E)
        node_E = steps[-1].next_observation_E
        assert torch.equal(steps[-1].episode_end_E, steps[-1].row_end_E)
    ends, edges = set(), set(env.graph.edges())
    for rows in episodes(first_E, torch.stack(actions), steps):
        for row in rows[:-1]:
            assert row["observation"][1:] == row["action"] and row["observation"][0] != 0
            walk = "".join(letters[node] for node in row["observation"])
            assert row["reward"][:-1] == [0.0] * (len(walk) - 2)
            assert row["reward"][-1] == pytest.approx(env.graph.optimality(walk[0], walk[1:]), abs=1e-6)
            assert row["flag"] == [DECISION] * (len(walk) - 2) + [DECISION | TERMINATED]
            inner = set(itertools.pairwise(walk[:-1]))
            assert len(walk) <= 10 and "a" not in walk[:-1] and inner <= edges
            along = (walk[-2], walk[-1]) in edges
            assert walk[-1] == "a" or not along or len(walk) == 10  # else it ended too early
            ends.add((walk[-1] == "a", along, len(walk) == 10))
    # At the goal, off the edges, and at 10 nodes: (at the goal, along an edge, 10 nodes).
    assert {(True, True, False), (False, False, False), (False, True, True)} <= ends


def test_evaluation_starts_at_each_node_and_the_best_walk_earns_the_reference() -> None:
    """Bug: evaluation on random starts; a best return that no walk has. Following falling distances earns 1 everywhere."""
    env = walks(evaluating=True, num_envs=23)
    expected = [1 + i % 20 for i in range(23)]
    assert env.reset().tolist() == expected
    shortest_N = torch.from_numpy(env.graph.shortest_N)
    nearest_N = torch.where(torch.from_numpy(env.graph.adjacency_NN), shortest_N, 99).argmin(1)
    node_E, return_E, episode_end_E = env.reset(), torch.zeros(23), torch.zeros(23, dtype=torch.bool)
    for _ in range(env.spec.episode_steps):
        step = env.step(nearest_N[node_E])
        return_E += step.reward_E * ~episode_end_E
        episode_end_E |= step.episode_end_E
        node_E = step.next_observation_E
        assert torch.equal(node_E[step.episode_end_E], torch.tensor(expected)[step.episode_end_E])
    assert episode_end_E.all() and return_E.tolist() == [1.0] * 23
    assert env.references() == {"optimal": 1.0, "uniform": pytest.approx(0.3462, abs=1e-4)}


def test_the_best_walks_on_a_large_graph() -> None:
    """Bug: starts beyond the 20 published ones left out, or walks cut at ten nodes. Falling distances earn 1 from everywhere."""
    env = walks(evaluating=True, num_envs=399, graph_seed=7, **LARGE._asdict())
    assert env.reset().tolist() == list(range(1, 400)) and (env.spec.num_actions, env.spec.row_transitions) == (400, 39)
    shortest_N = torch.from_numpy(env.graph.shortest_N)
    nearest_N = torch.where(torch.from_numpy(env.graph.adjacency_NN), shortest_N, 99).argmin(1)
    node_E, return_E, open_E = env.reset(), torch.zeros(399), torch.ones(399, dtype=torch.bool)
    for _ in range(int(shortest_N.max()) - 1):
        step = env.step(nearest_N[node_E])
        return_E += step.reward_E * open_E
        open_E &= ~step.episode_end_E
        node_E = step.next_observation_E
    assert not open_E.any() and return_E.tolist() == [1.0] * 399 and int(shortest_N.max()) > 10


def test_legal_moves() -> None:
    """Bug: a mask by column, for another observation, or without any choice (at the goal, where rows end)."""
    assert walks().legal(torch.zeros(2, 3, dtype=torch.int64)) is None
    env = walks(legal_moves_only=True)
    legal_BSA = env.legal(torch.tensor([[1, 3], [0, 7]]))
    assert legal_BSA is not None and legal_BSA.dtype == torch.bool and legal_BSA.shape == (2, 2, NODES)
    texts = ["".join(ALPHABET[a] for a in legal_A.nonzero().flatten()) for legal_A in legal_BSA.flatten(0, 1)]
    assert texts == ["dju", "alt", "a", "c"]  # of b, d, a, h: the file of seed 1000
    assert bool(env.legal(torch.arange(NODES)).any(-1).all())  # type: ignore[union-attr]


def test_shape_of_the_task() -> None:
    """Bug: a row too short for the longest walk, or starts that are not uniform over the 20 nodes but the goal."""
    env = walks(num_envs=20_000)
    assert (env.spec.row_transitions, env.spec.episode_steps, env.spec.first_decision) == (9, 9, 0)
    assert (env.spec.num_actions, env.spec.num_tokens, env.spec.alphabet) == (21, 21, "abcdefghijklmnopqrstu")
    assert not env.spec.stores_actions and not (env.spec.lockstep or env.spec.teacher_forced or env.spec.truncates)
    assert env.return_bounds(0.5) == env.reward_bounds == Bounds(0.0, 1.0)
    share_N = torch.bincount(env.reset(), minlength=NODES) / env.num_envs
    # Hoeffding: |share - p| > e with chance 2 exp(-2 n e^2); for 20 nodes together below 1e-6 at e = 0.021.
    assert share_N[0] == 0 and bool(((share_N[1:] - 0.05).abs() < 0.021).all())


@pytest.mark.parametrize(("key", "value"), [("num_envs", 0), ("graph_seed", -1), ("graph_seed", 2**32), *WRONG_SIZES])
def test_user_errors(key: str, value: int) -> None:
    """Bug: a traceback out of numpy where a setting is wrong."""
    with pytest.raises(UserError, match=f"env.{key} is {value}"):
        walks(**{key: value})


CONTRACT = [name for name in vars(test_environment) if name.startswith("test_contract")]
CASES: dict[str, list[tuple[float, ...]]] = {
    "test_contract_state_dict": [(0,), (1,), (7,), (23,)],
    "test_contract_return_bounds": [(0.0,), (0.7,), (1.0,)],
}


@pytest.mark.parametrize("check", CONTRACT)
def test_contract(check: str) -> None:
    """Bug: whatever the contract of every environment guards against (tests/envs/test_environment.py)."""
    assert CONTRACT, "the contract has no tests left"
    for case in CASES.get(check, [()]):
        getattr(test_environment, check)(walks, *case)  # each asserts for itself
