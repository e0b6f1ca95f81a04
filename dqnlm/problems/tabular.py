"""Small random decision processes and their solution by dynamic programming. All tensors are float64.

    q(s, a) = reward(s, a) + gamma sum_s' P(s' | s, a) [1 - terminal(s, a, s')] v(s')

with v = max_a q (plain), T logsumexp_a q / T (entropy-regularised at temperature T), or sum_a pi q (of a policy).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from numpy.random import RandomState
from torch import Tensor

MAX_SEED = 2**32 - 1
_SWEEPS = 100_000  # of value iteration; enough up to gamma 0.9996
_LONGEST = 1e9  # expected steps of an episode beyond which a policy is taken for one that never ends


class Process(NamedTuple):
    """A decision process with S states and A actions.

    Attributes:
        transition_SAS: float64, probability of each successor.
        reward_SA: float64.
        terminal_SAS: bool, whether the episode ends with this transition; False where it cannot happen.
    """

    transition_SAS: Tensor
    reward_SA: Tensor
    terminal_SAS: Tensor


def random_process(seed: int, states: int, actions: int, branching: int, terminal_probability: float) -> Process:
    """A process drawn at random, the same for the same arguments.

    Args:
        seed: in [0, 2^32).
        branching: successors of each state and action, distinct, uniformly drawn, with Dirichlet(1) probabilities.
        terminal_probability: chance that a transition is one that ends the episode.

    Returns:
        A process on the CPU; rewards are uniform in [-1, 1].
    """
    random = RandomState(seed)
    transition_SAS = torch.zeros(states, actions, states, dtype=torch.float64)
    for s in range(states):
        for a in range(actions):
            successors = torch.from_numpy(random.permutation(states)[:branching])
            probability_K = torch.from_numpy(random.dirichlet([1.0] * branching))
            transition_SAS[s, a, successors] = probability_K / probability_K.sum()  # a single one is 1 exactly
    reward_SA = torch.from_numpy(random.uniform(-1.0, 1.0, (states, actions)))
    ends_SAS = torch.from_numpy(random.rand(states, actions, states) < terminal_probability)
    return Process(transition_SAS, reward_SA, ends_SAS & (transition_SAS > 0))


def going_on(transition_SAS: Tensor, terminal_SAS: Tensor) -> Tensor:
    """Probability of each successor with the episode continuing, float64."""
    return transition_SAS.double() * (~terminal_SAS.bool()).double()


def value_iteration(
    transition_SAS: Tensor,
    reward_SA: Tensor,
    terminal_SAS: Tensor,
    gamma: float,
    temperature: float = 0.0,
    tolerance: float = 1e-12,
) -> Tensor:
    """The optimal q (Bellman 1957), or the entropy-regularised one (Haarnoja et al. 2017, soft value iteration).

    Args:
        gamma: discount, in [0, 1]; 1 only where every policy's episodes end.
        temperature: T of v = T logsumexp(q / T), in units of reward; 0 for v = max q.
        tolerance: greatest error of the answer, rounding apart (gamma < 1), or greatest change of the last sweep (gamma 1).

    Returns:
        q_SA, float64, on the arguments' device.

    Raises:
        ValueError: gamma or temperature out of range, or no convergence.
    """
    if not 0 <= gamma <= 1 or temperature < 0:
        raise ValueError(f"gamma {gamma} must be in [0, 1] and temperature {temperature} at least 0")
    on_SAS, reward_SA = going_on(transition_SAS, terminal_SAS), reward_SA.double()
    q_SA = torch.zeros_like(reward_SA)
    # After a change of c the distance to the fixed point is at most c gamma / (1 - gamma).
    change = tolerance * (1.0 if gamma == 1 else min((1 - gamma) / max(gamma, 1e-300), 1.0))
    for _ in range(_SWEEPS):
        v_S = temperature * (q_SA / temperature).logsumexp(1) if temperature > 0 else q_SA.amax(1)
        before_SA, q_SA = q_SA, reward_SA + gamma * on_SAS @ v_S
        # Rounding keeps a large q from settling more finely than its own last digits.
        if float((q_SA - before_SA).abs().max()) <= max(change, 1e-15 * float(q_SA.abs().max())):
            return q_SA
    raise ValueError(f"values do not settle at gamma {gamma} in {_SWEEPS} sweeps; use a smaller gamma")


def policy_value(
    transition_SAS: Tensor, reward_SA: Tensor, terminal_SAS: Tensor, gamma: float, policy_SA: Tensor
) -> Tensor:
    """q of a policy, by solving the linear equations v = (I - gamma P_pi)^-1 r_pi (no entropy term).

    Args:
        gamma: discount, in [0, 1]; 1 only where the policy's episodes end.
        policy_SA: probability of each action in each state.

    Returns:
        q_SA, float64, on the arguments' device.

    Raises:
        ValueError: the equations have no single answer.
    """
    on_SAS, reward_SA, policy_SA = going_on(transition_SAS, terminal_SAS), reward_SA.double(), policy_SA.double()
    on_SS = torch.einsum("sa,sat->st", policy_SA, on_SAS)
    eye_SS = torch.eye(len(on_SS), dtype=torch.float64, device=on_SS.device)
    gain_S = (policy_SA * reward_SA).sum(1)
    # Beside the values, the expected discounted number of steps: without end where the equations are singular.
    solved_S2, info = torch.linalg.solve_ex(eye_SS - gamma * on_SS, torch.stack([gain_S, torch.ones_like(gain_S)], 1))
    v_S, steps_S = solved_S2.unbind(1)
    if int(info) != 0 or not bool(((steps_S > 0) & (steps_S < _LONGEST)).all()):
        raise ValueError(f"the policy has no value at gamma {gamma}: some way never ends; use a smaller gamma")
    q_SA: Tensor = reward_SA + gamma * on_SAS @ v_S
    return q_SA
