"""What a policy chooses by: Q of one or two functions, a cloned policy beside it, temperatures, legal tokens. By hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.errors import UserError
from dqnlm.heads.scalar import Scalar
from dqnlm.types import Bounds

NETWORK: Any = None  # nothing here is computed by it
OUTPUT = {
    "q": torch.tensor([[1.0, 4.0, 6.0]])[..., None],
    "q2": torch.tensor([[3.0, 2.0, 5.0]])[..., None],
    "policy": torch.tensor([[0.0, math.log(2.0), 0.0]])[..., None],  # probabilities 1/4, 1/2, 1/4
}


def policy(declared: Any = "boltzmann", legal: list[bool] | None = None, temperature: float = 2.0, **more: Any) -> Policy:
    head = Scalar(Bounds(-math.inf, math.inf), False, loss="squared", initial_return=None)
    legal_A = None if legal is None else torch.tensor(legal)
    return Policy(NETWORK, head, None, legal_A, declared, temperature, **more)


def numbers(tensor: Tensor) -> list[float]:
    found: list[float] = tensor.flatten().tolist()
    return found


@pytest.mark.parametrize(("which", "q"), [("min", [1.0, 2.0, 5.0]), ("first", [1.0, 4.0, 6.0]), ("mean", [2.0, 3.0, 5.5])])
def test_which_of_two_q_functions_acts(which: Any, q: list[float]) -> None:
    """Bug: a setting that is not read; the smaller of two means in the place of the smaller of each action."""
    assert numbers(policy(acting_q=which).preference(OUTPUT)) == pytest.approx(q)
    assert numbers(policy(acting_q=which).preference({"q": OUTPUT["q"]})) == [1.0, 4.0, 6.0]


def test_a_reweighted_policy_by_hand() -> None:
    """Bug: beta or the cloned policy left out; its logits in the place of its log-probabilities.

    log pi_b = log(1/4), log(1/2), log(1/4), and beta 3 times the smaller Q: 1, 2, 5.
    """
    expected = pytest.approx([math.log(0.25) + 3.0, math.log(0.5) + 6.0, math.log(0.25) + 15.0])
    reweighted = policy("reweighted", beta=3.0)
    assert numbers(reweighted.preference(OUTPUT)) == expected
    assert numbers(reweighted.logits(OUTPUT, "reweighted", None)) == expected, "the temperature is no part of it"


def test_temperatures_and_legal_tokens_by_hand() -> None:
    """Bug: Q times the temperature, the fitted one where another is given, or a token that may not be chosen."""
    chooses = policy(legal=[True, True, False])
    assert numbers(chooses.logits({"q": OUTPUT["q"]}, "boltzmann", None)) == [0.5, 2.0, -math.inf]
    assert numbers(chooses.logits({"q": OUTPUT["q"]}, "boltzmann", 0.5)) == [2.0, 8.0, -math.inf]
    generator = torch.Generator().manual_seed(0)
    assert chooses.chooser("greedy", None, None, generator)(OUTPUT).tolist() == [1]
    drawn = [int(chooses.chooser("boltzmann", 1e-3, None, generator)(OUTPUT)) for _ in range(20)]
    assert set(drawn) == {1}
    assert {int(chooses.chooser("boltzmann", 1e3, None, generator)(OUTPUT)) for _ in range(60)} == {0, 1}
    assert {int(chooses.chooser("boltzmann", 1e3, 1, generator)(OUTPUT)) for _ in range(20)} == {1}  # the best one alone


def test_a_temperature_that_was_set_is_not_fitted() -> None:
    """Bug: the setting policy.temperature is overwritten by the first evaluation."""
    own, fitted = policy(has_own_temperature=True), policy()
    for each in (own, fitted):
        each.fit(0.7)
    assert (own.temperature, fitted.temperature) == (2.0, 0.7)
    assert policy(temperature=1.0).default == "greedy"
    assert policy(temperature=1.0, has_own_temperature=True).default == "boltzmann"


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, 1e300, 1e-320])
def test_a_temperature_that_q_cannot_be_divided_by(temperature: float) -> None:
    """Bug: --temperature nan is taken, and writes the same token again and again."""
    with pytest.raises(UserError, match="--temperature must be above 0 and finite"):
        policy().chooser("boltzmann", temperature, None, torch.Generator())
