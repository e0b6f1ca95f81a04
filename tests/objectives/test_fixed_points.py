"""Every value-based preset on a table, where its answer is known: the learner's own updates must find it.

A deterministic problem of 5 states and 3 actions, discount .8; the batch holds every row of length T from every state with
every sequence of actions, so that there is no sampling error, and only the first decision of a row learns. Each answer is
computed apart, by iterating the operator in plain matrix form until it no longer moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.agent import optimizer as optimizers
from dqnlm.agent.learner import Learner
from dqnlm.agent.target import Target
from dqnlm.heads.base import Head
from dqnlm.heads.categorical import Categorical
from dqnlm.heads.implicit_quantile import ImplicitQuantile
from dqnlm.heads.quantile import Quantile
from dqnlm.heads.scalar import Scalar
from dqnlm.metrics import Accumulator
from dqnlm.networks.base import OneHotEncoder, QNetwork
from dqnlm.networks.projections import Dueling, Linear
from dqnlm.networks.table import Table
from dqnlm.objectives.base import Objective, combined
from dqnlm.objectives.bootstrap import Bootstrap, Double, Max, Munchausen, Soft, Value
from dqnlm.objectives.conservative import Conservative
from dqnlm.objectives.expectile_value import ExpectileValue
from dqnlm.objectives.path_consistency import PathConsistency
from dqnlm.objectives.returns import Lambda, MonteCarlo, NStep, OneStep, Returns
from dqnlm.objectives.td import TDObjective, td
from dqnlm.objectives.trajectory import Trajectory
from dqnlm.types import Batch, Bounds
from tests.helpers.batches import make_batch
from tests.helpers.learners import CPU, cross_entropy, learner_settings
from tests.helpers.slow import mostly_slow

S, A, GAMMA = 5, 3, 0.8
_draw = torch.Generator().manual_seed(3)
NEXT_SA = torch.randint(S, (S, A), generator=_draw)
REWARD_SA = torch.rand(S, A, generator=_draw) * 2 - 1
BOUNDS = Bounds(-5.0, 5.0)  # 1 / (1 - .8)


def rows(length: int) -> Batch:
    """Every start with every sequence of actions; only the first decision learns."""
    table = [(s, *actions) for s in range(S) for actions in itertools.product(range(A), repeat=length)]
    start_B, action_BT = torch.tensor([t[0] for t in table]), torch.tensor([t[1:] for t in table])
    observations, rewards = [start_B], []
    for t in range(length):
        rewards.append(REWARD_SA[observations[-1], action_BT[:, t]])
        observations.append(NEXT_SA[observations[-1], action_BT[:, t]])
    learn_BT = torch.zeros(len(table), length)
    learn_BT[:, 0] = 1
    observation_BS = torch.stack(observations, 1)
    return make_batch(action_BT, torch.stack(rewards, 1), GAMMA, observation_BS=observation_BS, learn_BT=learn_BT)


def table_learner(
    objectives: dict[str, Objective], head: Head, projection: Callable[..., Any] = Linear, updates: int = 600,
    lr: float = 0.1, states: int = S, actions: int = A, kl_weight: float = 0.0,
    kl_temperature: float = 1.0,
) -> Learner:  # fmt: skip
    torch.manual_seed(0)
    body = Table(states, context=8)
    outputs = {"q": head.project(projection, states, actions)}
    for name in combined(o.requires for o in objectives.values()).outputs:
        outputs[name] = Linear(states, 1 if name == "v" else actions, 1)
    network = QNetwork(OneHotEncoder(states), body, outputs)
    optimizer = optimizers.adam(
        network, updates, lr=lr, betas=[0.9, 0.999], eps=1e-8, warmup_updates=0, schedule="cosine", final_fraction=0.01
    )
    settings = learner_settings(kl_weight=kl_weight, kl_temperature=kl_temperature)
    target = Target(network, period=None, polyak_rate=0.1)
    return Learner(network, target, objectives, optimizer, Accumulator(CPU), 0, head, **settings)


def make_td(head: Head, bootstrap: Bootstrap, returns: Returns, twin: bool = False) -> TDObjective:
    return td(head, bootstrap, returns, None, True, True, weight=1.0, twin=twin)


def learned(learner: Learner, head: Head, batch: Batch, updates: int = 600) -> Tensor:
    """q_SA after training on the same whole batch."""
    for _ in range(updates):
        learner.update(batch)
    learner.network.eval()
    with torch.no_grad():
        return head.value(learner.network(torch.arange(S)[:, None])["q"])[:, 0]


def scalar() -> Scalar:
    return Scalar(BOUNDS, False, loss="squared", initial_return=None)


def iterate(operator: Callable[[Tensor], Tensor], shape: tuple[int, ...] = (S, A)) -> Tensor:
    x = torch.zeros(*shape, dtype=torch.float64)
    for _ in range(500):
        x = operator(x)
    return x.float()


def backup(v_S: Tensor) -> Tensor:
    return REWARD_SA.double() + GAMMA * v_S[NEXT_SA]


OPTIMAL = iterate(lambda q: backup(q.amax(-1)))
UNIFORM = iterate(lambda q: backup(q.mean(-1)))


def multistep_answer(trace: float | None, n: int) -> Tensor:
    """Uniform behaviour, n decisions, greedy value at the end; with `trace` the mixture within those n."""

    def operator(q: Tensor) -> Tensor:
        v = q.amax(-1)
        g = v
        for _ in range(n - 1):
            inner = v if trace is None else (1 - trace) * v + trace * g
            g = backup(g if trace is None else inner).mean(-1)
        return backup(g if trace is None else (1 - trace) * v + trace * g)

    return iterate(operator)


HEADS: dict[str, Callable[[], Head]] = {
    "scalar": scalar,
    "logistic": lambda: Scalar(BOUNDS, False, loss="logistic", initial_return=None),
    "categorical": lambda: Categorical(BOUNDS, num_atoms=41, low=None, high=None, temperature=None),
    "quantile": lambda: Quantile(BOUNDS, num_quantiles=8, kappa=0.1),
    "implicit_quantile": lambda: ImplicitQuantile(BOUNDS, num_quantiles=8, embedding=8, kappa=0.1),
}


@pytest.mark.parametrize("head_name", mostly_slow(sorted(HEADS), lambda _, name: name != "implicit_quantile"))
@pytest.mark.parametrize("bootstrap", [Max(), Double()], ids=["max", "double"])
def test_one_step_presets_find_the_optimum(head_name: str, bootstrap: Bootstrap) -> None:
    """Bug: dqn, double_dqn, c51, qr_dqn or iqn converge somewhere else than Q* (mean of the distribution for the last)."""
    head = HEADS[head_name]()
    updates = {"scalar": 600, "implicit_quantile": 2500}.get(head_name, 1200)
    learner = table_learner({"td": make_td(head, bootstrap, OneStep())}, head, updates=updates)
    found = learned(learner, head, rows(1), updates)
    torch.testing.assert_close(found, OPTIMAL, atol=0.05, rtol=0)


def dueling(features: int, num_actions: int, num_parameters: int) -> Dueling:
    return Dueling(features, num_actions, num_parameters, hidden=0)


def test_dueling_and_twin_find_the_optimum() -> None:
    """Bug: a decomposition that cannot represent Q*, or a second Q-function that pulls the first away."""
    head = scalar()
    one = learned(table_learner({"td": make_td(head, Double(), OneStep())}, head, dueling), head, rows(1))
    two = learned(table_learner({"td": make_td(head, Max(), OneStep(), twin=True)}, head), head, rows(1))
    torch.testing.assert_close(one, OPTIMAL, atol=0.02, rtol=0)
    torch.testing.assert_close(two, OPTIMAL, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("returns", "trace", "n"),
    [(NStep(n=3), None, 3), (Lambda(trace=0.6), 0.6, 3), (MonteCarlo(), None, 3)],
    ids=["n_step", "lambda", "monte_carlo"],
)
def test_multistep_presets_find_their_own_operator(returns: Returns, trace: float | None, n: int) -> None:
    """Bug: n_step_dqn, q_lambda or mc_q converge elsewhere than the fixed point of their (uncorrected) operator.

    The behaviour is uniform. Rows are cut after three decisions, so Monte-Carlo there is the three-step return.
    """
    head = scalar()
    found = learned(table_learner({"td": make_td(head, Max(), returns)}, head), head, rows(3))
    torch.testing.assert_close(found, multistep_answer(trace, n), atol=0.02, rtol=0)


SOFT = 0.3
ENTROPIC = iterate(lambda q: backup(SOFT * (q / SOFT).logsumexp(-1)))


@pytest.mark.parametrize("n", [1, 2, None])
def test_path_consistency_finds_the_entropy_regularised_solution(n: int | None) -> None:
    """Bug: single-step or multi-step consistency with another fixed point than the soft Bellman equation's."""
    head = scalar()
    objective = PathConsistency(head, True, weight=1.0, temperature=SOFT, n=n, reference="none")
    found = learned(table_learner({"path_consistency": objective}, head), head, rows(1 if n == 1 else 3))
    torch.testing.assert_close(found, ENTROPIC, atol=0.02, rtol=0)


def test_soft_q_finds_the_entropy_regularised_solution() -> None:
    """Bug: another temperature in the bootstrap than the stated one."""
    head = scalar()
    found = learned(table_learner({"td": make_td(head, Soft(temperature=SOFT), OneStep())}, head), head, rows(1))
    torch.testing.assert_close(found, ENTROPIC, atol=0.02, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_munchausen_finds_its_own_operator(alpha: float) -> None:
    """Bug: the log-policy bonus of the wrong state, action or sign. Alpha 0 is soft Q.

    q = r + alpha max(T log pi, -1) + gamma sum_a pi (q - T log pi), the bonus at s, the value at s'.
    """

    def operator(q: Tensor) -> Tensor:
        log_pi = (q / SOFT).log_softmax(-1)
        return backup(SOFT * (q / SOFT).logsumexp(-1)) + alpha * (SOFT * log_pi).clamp(-1.0, 0.0)

    head = scalar()
    bootstrap = Munchausen(alpha=alpha, temperature=SOFT, clip_low=-1.0)
    found = learned(table_learner({"td": make_td(head, bootstrap, OneStep())}, head), head, rows(1))
    torch.testing.assert_close(found, iterate(operator), atol=0.02, rtol=0)


def test_conservative_finds_its_own_operator() -> None:
    """Bug: the penalty with the wrong sign, size or action.

    With uniform data the mean over actions of (q_a - y_a)^2 / 2 + alpha (T logsumexp(q / T) - q_a) is least where
    (q_a - y_a) / A + alpha (softmax_a(q / T) - 1 / A) = 0.
    """
    alpha, temperature = 0.2, 0.5
    head = scalar()
    objectives: dict[str, Objective] = {
        "td": make_td(head, Max(), OneStep()),
        "conservative": Conservative(head, weight=alpha, temperature=temperature),
    }

    def operator(q: Tensor) -> Tensor:
        goal = backup(q.amax(-1)) - alpha * A * ((q / temperature).softmax(-1) - 1 / A)
        return q + 0.2 * (goal - q)

    found = learned(table_learner(objectives, head), head, rows(1))
    torch.testing.assert_close(found, iterate(operator), atol=0.02, rtol=0)


def test_ilql_finds_the_expectile_solution() -> None:
    """Bug: an expectile of the wrong side, or of the online Q; a cloned policy that is not the data's.

    v is the expectile of q over the (uniform) data: sum_a |tau - 1(q_a < v)| (q_a - v) = 0; q = r + gamma v(s').
    """
    tau = 0.8
    head = scalar()
    objectives: dict[str, Objective] = {
        "td": make_td(head, Value(), OneStep(), twin=True),
        "expectile_value": ExpectileValue(head, weight=1.0, expectile=tau),
        "cross_entropy": cross_entropy(output="policy"),
    }

    def operator(x: Tensor) -> Tensor:
        q, v = x[:, :A], x[:, A]
        weight = torch.where(q < v[:, None], 1 - tau, tau)
        return torch.cat([backup(v), ((weight * q).sum(-1) / weight.sum(-1))[:, None]], 1)

    answer = iterate(operator, (S, A + 1))
    learner = table_learner(objectives, head, updates=1200)
    found = learned(learner, head, rows(1), 1200)
    torch.testing.assert_close(found, answer[:, :A], atol=0.03, rtol=0)
    with torch.no_grad():
        output = learner.network(torch.arange(S)[:, None])
    torch.testing.assert_close(output["v"].flatten(), answer[:, A], atol=0.03, rtol=0)
    torch.testing.assert_close(
        output["policy"].squeeze(-1).softmax(-1)[:, 0], torch.full((S, A), 1 / A), atol=0.02, rtol=0
    )


def test_mc_q_and_tbrm_on_whole_episodes() -> None:
    """Bug: returns that bootstrap, or an episode's residual with the wrong sign.

    A tree of depth 3: the state is the number of its node, so every trajectory is a row, all of them in the batch, gamma 1.
    mc_q: the mean return under the data's uniform policy. tbrm: q = r + T logsumexp(q(s') / T), the soft solution: its
    policy everywhere, and its value at the root (one residual an episode says nothing of the level of later values).
    """
    depth, nodes = 3, 1 + 2 + 4
    reward = torch.rand(nodes, 2, generator=torch.Generator().manual_seed(5))
    table = list(itertools.product(range(2), repeat=depth))
    node_BT = torch.tensor([[2**t - 1 + int("0" + "".join(map(str, a[:t])), 2) for t in range(depth)] for a in table])
    action_BT = torch.tensor(table)
    observation_BS = torch.cat([node_BT, node_BT[:, -1:]], 1)
    batch = make_batch(action_BT, reward[node_BT, action_BT], [1.0, 1.0, 0.0], observation_BS=observation_BS)
    soft, mean = torch.zeros(nodes, 2), torch.zeros(nodes, 2)
    for node in reversed(range(nodes)):
        for action in range(2):
            child = 2 * node + 1 + action
            last = child >= nodes
            soft[node, action] = reward[node, action] + (
                0 if last else SOFT * float((soft[child] / SOFT).logsumexp(-1))
            )
            mean[node, action] = reward[node, action] + (0 if last else float(mean[child].mean()))
    head = scalar()
    for objective, answer in (
        (td(head, Max(), MonteCarlo(), None, True, False, weight=1.0, twin=False), mean),
        (Trajectory(head, weight=1.0, temperature=SOFT, reference="none", baseline="value"), soft),
    ):
        learner = table_learner({"objective": objective}, head, states=nodes, actions=2, updates=1000)
        for _ in range(1000):
            learner.update(batch)
        with torch.no_grad():
            found = head.value(learner.network(torch.arange(nodes)[:, None])["q"])[:, 0]
        if isinstance(objective, Trajectory):
            for q in (found, answer):
                q[1:] -= SOFT * (q[1:] / SOFT).logsumexp(-1, keepdim=True)
        torch.testing.assert_close(found, answer, atol=0.03, rtol=0)


def test_the_answers_differ() -> None:
    """Bug: a problem so tame that every operator has the same fixed point, so that these tests cannot tell them apart."""
    answers = [OPTIMAL, UNIFORM, ENTROPIC, multistep_answer(None, 3), multistep_answer(0.6, 3)]
    for one, two in itertools.combinations(answers, 2):
        assert float((one - two).abs().max()) > 0.1
