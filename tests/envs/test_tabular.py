"""Dynamic programming against hand computation and brute force; the environment against the process's tables."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.envs.tabular import Tabular
from dqnlm.errors import UserError
from dqnlm.problems.tabular import Process, policy_value, random_process, value_iteration
from dqnlm.types import DECISION, TERMINATED, TRUNCATED
from tests.envs import test_environment
from tests.helpers.environments import NoHostSynchronisation, episodes, played, random_actions


def two_states() -> Process:
    """Action 0 stays (reward 0 in state 0, 1 in state 1); action 1 goes from 0 to 1 (-1), and ends the episode from 1 (0)."""
    transition_SAS = torch.zeros(2, 2, 2)
    for s, a, after in [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]:
        transition_SAS[s, a, after] = 1.0
    terminal_SAS = torch.zeros(2, 2, 2, dtype=torch.bool)
    terminal_SAS[1, 1, 0] = True
    return Process(transition_SAS, torch.tensor([[0.0, -1.0], [1.0, 0.0]]), terminal_SAS)


def tabular(seed: int = 0, evaluating: bool = False, **options: Any) -> Tabular:
    settings = {
        "num_envs": 30, "mdp_seed": 5, "states": 3, "actions": 4, "branching": 2, "horizon": 4, "terminal_probability": 0.2,
    }  # fmt: skip
    return Tabular(torch.device("cpu"), seed, evaluating, **(settings | options))  # type: ignore[arg-type]


def test_value_iteration_by_hand() -> None:
    """Bug: a bootstrap across a termination, or a reward of the next state.

    gamma 0.9: staying in 1 is worth 1 / (1 - 0.9) = 10, going there -1 + 0.9 * 10 = 8, staying in 0 first 0.9 * 8 = 7.2,
    and ending 0, although the table names state 0 as its successor.
    """
    q_SA = value_iteration(*two_states(), gamma=0.9)
    assert torch.allclose(q_SA, torch.tensor([[7.2, 8.0], [10.0, 0.0]], dtype=torch.float64), atol=1e-10, rtol=0)
    assert q_SA.dtype == torch.float64
    now_SA = value_iteration(*two_states(), gamma=0.0)
    assert torch.equal(now_SA, torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))


def test_policy_value_by_hand() -> None:
    """Bug: actions weighted wrongly. Uniform policy, gamma 0.9:

    v1 = (1 + 0.9 v1) / 2 + 0 / 2 = 10/11;  v0 = 0.9 v0 / 2 + (-1 + 0.9 v1) / 2 = (-2/11) / 2 / 0.55 = -20/121.
    """
    q_SA = policy_value(*two_states(), gamma=0.9, policy_SA=torch.full((2, 2), 0.5))
    expected = [[0.9 * -20 / 121, -1 + 9 / 11], [1 + 9 / 11, 0.0]]
    assert torch.allclose(q_SA, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("gamma", [0.5, 0.99])
def test_value_iteration_against_every_policy(gamma: float) -> None:
    """Bug: a fixed point that is not the best. Brute force: the best of all 3^4 deterministic policies, in every state."""
    process = random_process(3, 4, 3, branching=2, terminal_probability=0.1)
    q_SA = value_iteration(*process, gamma=gamma)
    values = []
    for choice in itertools.product(range(3), repeat=4):
        policy_SA = torch.nn.functional.one_hot(torch.tensor(choice), 3)
        of_policy_SA = policy_value(*process, gamma=gamma, policy_SA=policy_SA)
        values.append((of_policy_SA * policy_SA).sum(1))
    assert torch.allclose(q_SA.amax(1), torch.stack(values).amax(0), atol=1e-9, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_fixed_point_in_plain_loops(temperature: float) -> None:
    """Bug: a transposed table. Oracle: q(s, a) = r + gamma sum P (1 - terminal) v(s') written out over numbers."""
    P, R, terminal = (table.tolist() for table in random_process(8, 5, 2, branching=3, terminal_probability=0.3))
    q = value_iteration(*map(torch.tensor, (P, R, terminal)), gamma=0.9, temperature=temperature).tolist()  # type: ignore[call-arg]

    def v(s: int) -> float:
        return temperature * math.log(sum(math.exp(x / temperature) for x in q[s])) if temperature else max(q[s])

    for s in range(5):
        for a in range(2):
            after = sum(P[s][a][t] * v(t) for t in range(5) if not terminal[s][a][t])
            assert q[s][a] == pytest.approx(R[s][a] + 0.9 * after, abs=1e-6)  # tables went through float32


def test_entropy_regularised_by_hand() -> None:
    """Bug: temperature multiplied in once instead of twice. One state, two actions of reward 0, gamma 0.5, T = 2:

    v = T log(2 exp(q / T)) = q + T log 2 and q = 0.5 v, so v = 2 T log 2 and q = T log 2 = 2 log 2.
    """
    process = Process(torch.ones(1, 2, 1), torch.zeros(1, 2), torch.zeros(1, 2, 1, dtype=torch.bool))
    q_SA = value_iteration(*process, gamma=0.5, temperature=2.0)
    assert q_SA.tolist() == [[pytest.approx(2 * math.log(2), abs=1e-11)] * 2]


def test_entropy_regularised_limit() -> None:
    """Bug: another limit than the plain optimum. 0 <= q_T - q_0 <= gamma T log A / (1 - gamma), for ever smaller T."""
    process = random_process(1, 6, 3, branching=2, terminal_probability=0.1)
    plain_SA = value_iteration(*process, gamma=0.9)
    for temperature in (1.0, 0.1, 1e-2, 1e-4, 1e-7):
        more_SA = value_iteration(*process, gamma=0.9, temperature=temperature) - plain_SA
        assert float(more_SA.min()) >= -1e-11
        assert float(more_SA.max()) <= 0.9 * temperature * math.log(3) / 0.1 + 1e-11


def test_entropy_regularised_is_worth_its_own_policy() -> None:
    """Bug: a value without the entropy it is said to hold. Its softmax policy, paid T times its entropy, is worth v."""
    process = random_process(2, 5, 3, branching=2, terminal_probability=0.1)
    T, gamma = 0.5, 0.9
    q_SA = value_iteration(*process, gamma=gamma, temperature=T)
    policy_SA = (q_SA / T).softmax(1)
    bonus_S1 = -T * (policy_SA * policy_SA.log()).sum(1, keepdim=True)
    paid_SA = policy_value(process.transition_SAS, process.reward_SA + bonus_S1, process.terminal_SAS, gamma, policy_SA)
    assert torch.allclose((policy_SA * paid_SA).sum(1), T * (q_SA / T).logsumexp(1), atol=1e-9, rtol=0)


def test_what_has_no_value_raises() -> None:
    """Bug: a huge number instead of an error, where at gamma 1 staying in state 1 pays 1 for ever."""
    stay_SA = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="never ends"):
        policy_value(*two_states(), gamma=1.0, policy_SA=stay_SA)
    random = random_process(0, 5, 2, branching=3, terminal_probability=0.0)  # singular only up to rounding
    with pytest.raises(ValueError, match="never ends"):
        policy_value(*random, gamma=1.0, policy_SA=torch.full((5, 2), 0.5))
    go_SA = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert policy_value(*two_states(), gamma=1.0, policy_SA=go_SA).tolist() == [[-1.0, -1.0], [1.0, 0.0]]
    for gamma, temperature in [(1.1, 0.0), (-0.1, 0.0), (0.5, -1.0)]:
        with pytest.raises(ValueError, match="gamma"):
            value_iteration(*two_states(), gamma=gamma, temperature=temperature)


def test_value_iteration_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a program that hangs, or returns numbers that still grow."""
    monkeypatch.setattr("dqnlm.problems.tabular._SWEEPS", 1000)
    with pytest.raises(ValueError, match="do not settle"):
        value_iteration(*two_states(), gamma=1.0)


@pytest.mark.parametrize("branching", [1, 3, 6])
def test_random_process(branching: int) -> None:
    """Bug: probabilities that do not add up, repeated successors, terminations that cannot happen, a seed ignored."""
    process = random_process(4, 6, 5, branching, terminal_probability=0.25)
    assert torch.allclose(process.transition_SAS.sum(2), torch.ones(6, 5, dtype=torch.float64))
    assert bool(((process.transition_SAS > 0).sum(2) == branching).all())
    assert bool((process.reward_SA.abs() <= 1).all()) and process.reward_SA.unique().numel() == 30
    assert not bool((process.terminal_SAS & (process.transition_SAS == 0)).any()) and bool(process.terminal_SAS.any())
    same, other = (random_process(seed, 6, 5, branching, 0.25) for seed in (4, 0))
    assert all(torch.equal(a, b) for a, b in zip(process, same, strict=True))
    assert not torch.equal(process.reward_SA, other.reward_SA)
    never, always = (random_process(4, 6, 5, branching, share).terminal_SAS for share in (0.0, 1.0))
    assert not bool(never.any()) and torch.equal(always, process.transition_SAS > 0)


@pytest.mark.parametrize("branching", [1, 2, 3])
def test_transitions_come_as_often_as_the_table_says(branching: int) -> None:
    """Bug: successors of another action, or cumulative probabilities off by one.

    n = 20,000 independent draws from each (s, a). Hoeffding: |share - p| > e has chance at most 2 exp(-2 n e^2); over the
    36 cells together less than 1e-6 at e = 0.022. Successors of probability 0 must never come.
    """
    n, S, A = 20_000, 3, 4
    env = tabular(num_envs=n * S * A, branching=branching)
    env.reset()
    state_E, action_E = (x.flatten().repeat(n) for x in torch.meshgrid(torch.arange(S), torch.arange(A), indexing="ij"))
    env.load_state_dict(env.state_dict() | {"state_E": state_E})
    step = env.step(action_E)
    count_SAS = torch.bincount((state_E * A + action_E) * S + step.observation_E, minlength=S * A * S).view(S, A, S)
    assert float((count_SAS / n - env.transition_SAS).abs().max()) < 0.022
    assert bool((count_SAS[env.transition_SAS == 0] == 0).all())
    if branching == 1:
        assert torch.equal(count_SAS, n * env.transition_SAS.long())
    # New episodes start uniformly, whatever ended them; the least count here is over 10,000: e = 0.03 as above.
    share_S = torch.bincount(step.next_observation_E[step.episode_end_E], minlength=S) / step.episode_end_E.sum()
    assert int(step.episode_end_E.sum()) > 10_000 and float((share_S - 1 / S).abs().max()) < 0.03


def test_rows_follow_the_tables() -> None:
    """Bug: a reward or an end of another transition; an episode that starts anew where its row is only cut."""
    env = tabular()
    action_NE = random_actions(env, 40)
    first_E, _, steps = played(env, action_NE)
    cut = ended = 0
    for e, rows in enumerate(episodes(first_E, action_NE, steps)):
        for row, following in itertools.pairwise(rows):
            s, a, after = row["observation"][:-1], row["action"], row["observation"][1:]
            assert row["reward"] == pytest.approx(env.reward_SA[s, a].tolist())
            terminal = env.terminal_SAS[s, a, after].tolist()
            assert [bool(flag & TERMINATED) for flag in row["flag"]] == terminal
            assert all(flag & DECISION for flag in row["flag"])
            truncated = not terminal[-1]
            assert bool(row["flag"][-1] & TRUNCATED) == truncated and (not truncated or len(a) == 4)
            assert not truncated or following["observation"][0] == after[-1]
            cut, ended = cut + truncated, ended + terminal[-1]
        over = [bool(step.episode_end_E[e]) for step in steps]
        assert over == [bool(step.flag_E[e] & TERMINATED) for step in steps]
    assert cut > 20 and ended > 20


def test_evaluation() -> None:
    """Bug: an evaluation of episodes that never end, or at random starts."""
    env = tabular(evaluating=True, num_envs=7, terminal_probability=0.0)
    starts = [0, 1, 2, 0, 1, 2, 0]
    assert env.reset().tolist() == starts
    for time in range(1, 9):
        step = env.step(torch.zeros(7, dtype=torch.int64))
        ended = time % env.spec.episode_steps == 0
        assert step.episode_end_E.tolist() == step.row_end_E.tolist() == [ended] * 7
        assert not ended or (step.next_observation_E.tolist() == starts and bool((step.flag_E & TRUNCATED).all()))


def test_return_bounds_hold_for_the_best_and_the_worst_policy() -> None:
    """Bug: bounds of a single row, which a value that bootstraps at its end exceeds."""
    env = tabular(terminal_probability=0.0)
    tables = (env.transition_SAS, env.reward_SA, env.terminal_SAS)
    low, high = env.return_bounds(0.9)
    best_SA = value_iteration(*tables, gamma=0.9)
    worst_SA = -value_iteration(tables[0], -tables[1], tables[2], gamma=0.9)
    assert low <= float(worst_SA.min()) and float(best_SA.max()) <= high
    assert env.return_bounds(0.0) == env.reward_bounds and env.return_bounds(1.0) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "env.num_envs is 0"),
        ({"horizon": 0}, "env.horizon is 0"),
        ({"branching": 4}, "env.branching is 4.*to 3 or less"),
        ({"mdp_seed": -1}, "env.mdp_seed is -1"),
        ({"terminal_probability": 1.5}, "env.terminal_probability is 1.5"),
    ],
)
def test_user_errors(options: dict[str, Any], message: str) -> None:
    """Bug: a traceback from the depths where a setting is wrong."""
    with pytest.raises(UserError, match=message):
        tabular(**options)


CONTRACT = [name for name in vars(test_environment) if name.startswith("test_contract")]
CASES: dict[str, list[tuple[float, ...]]] = {
    "test_contract_state_dict": [(0,), (1,), (7,), (23,)],
    "test_contract_return_bounds": [(0.0,), (0.7,), (1.0,)],
}


@pytest.mark.parametrize("branching", [1, 2])
@pytest.mark.parametrize("check", CONTRACT)
def test_contract(check: str, branching: int) -> None:
    """Bug: whatever the contract of every environment guards against (tests/envs/test_environment.py)."""
    assert CONTRACT, "the contract has no tests left"
    for case in CASES.get(check, [()]):  # each asserts for itself
        getattr(test_environment, check)(lambda seed: tabular(seed, branching=branching), *case)


def test_nothing_reaches_the_host_in_evaluation() -> None:
    """Bug: a tensor read by the host at each step, which stalls a device."""
    env, action_E = tabular(evaluating=True), torch.zeros(30, dtype=torch.int64)
    with NoHostSynchronisation():
        seen: Tensor = env.reset()
        for _ in range(5):
            seen = env.step(action_E).next_observation_E
    assert seen.shape == (30,)
