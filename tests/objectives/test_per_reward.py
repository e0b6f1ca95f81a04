"""Several rewards learned at once: each as if it were alone, and acted by with weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dqnlm.agent import learner as learners
from dqnlm.agent.learner import Learner
from dqnlm.agent.policy import Kind, Policy
from dqnlm.agent.reward_weights import read_weights, weights_of
from dqnlm.agent.target import Target
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator
from dqnlm.networks import deferred
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear
from dqnlm.networks.recurrent import GRU
from dqnlm.objectives.base import Objective, combined
from dqnlm.objectives.conservative import Conservative
from dqnlm.objectives.expectile_value import ExpectileValue
from dqnlm.objectives.path_consistency import PathConsistency
from dqnlm.objectives.per_reward import PerReward, for_rewards
from dqnlm.objectives.returns import Lambda
from dqnlm.types import Batch, TaskSpec
from dqnlm.utils.output_names import all_outputs, all_q, first_q, how_many, named, of_reward, plain, suffix
from tests.helpers.batches import A, T, decisions, make_batch, random_batch
from tests.helpers.learners import CPU, HEADS, adam, cross_entropy, learner_settings, make_td

REWARDS = ("reward_a", "other")
Make = Callable[[], dict[str, Objective]]


def ilql() -> dict[str, Objective]:
    return {
        "td": make_td(bootstrap="value", twin=True, multistep=Lambda(trace=0.7)),
        "expectile_value": ExpectileValue(HEADS["squared"](), weight=0.5, expectile=0.8),
        "conservative": Conservative(HEADS["squared"](), weight=0.3, temperature=0.7),
        "cross_entropy": cross_entropy(output="policy"),
    }


def double() -> dict[str, Objective]:
    return {"td": make_td()}


def network(objectives: dict[str, Objective], rewards: tuple[str, ...]) -> QNetwork:
    """The same trunk; outputs by name, each from a seed of its own."""
    torch.manual_seed(1)
    body, encoder, outputs = GRU(layers=1, width=12, context=T), TokenEncoder(A, 12, 1.0), dict[str, nn.Module]()
    for name in all_outputs(combined(o.requires for o in objectives.values()).outputs, rewards):
        outputs[name] = Linear(12, 1 if plain(name, rewards) == "v" else A, 1)
        torch.manual_seed(sum(map(ord, name)))
        nn.init.normal_(outputs[name].linear.weight, std=0.5)  # type: ignore[union-attr,arg-type]
    return QNetwork(encoder, body, outputs)


def batch_of(rewards: int = 2) -> Batch:
    batch = random_batch(rows=6, seed=3)
    generator = torch.Generator().manual_seed(9)
    several = torch.rand(*batch.reward_BT.shape, rewards, generator=generator) * batch.mask_BT[..., None]
    return replace(batch, reward_BT=several)


def gradients(make: Make, batch: Batch, rewards: tuple[str, ...], weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The gradient of one update, by the names of the weights; the network begins with `weights`."""
    objectives = for_rewards(make(), rewards)
    online = network(objectives, rewards)
    if weights is not None:
        online.load_state_dict(weights)
    target = Target(online, period=100, polyak_rate=None)
    with torch.no_grad():
        for parameter in target.network.parameters():
            parameter.mul_(0.8)  # so that a mix-up of the two networks shows
    learner = Learner(online, target, objectives, adam(online), Accumulator(CPU), **learner_settings())
    learner.update(batch)
    return {name: p.grad.clone() for name, p in online.named_parameters() if p.grad is not None}


def of_one(state: dict[str, Tensor], reward: str) -> dict[str, Tensor]:
    """The weights of a network on several rewards that a run on one of them has, by its names."""
    found = {}
    for name, value in state.items():
        whole, dot, rest = name.removeprefix("projections.").partition(".")
        kind = plain(whole, (reward,))
        if not name.startswith("projections.") or kind in ("q", "q2", "v", "policy"):
            found[f"projections.{kind}.{rest}" if name.startswith("projections.") else name] = value
        assert dot
    return found


@pytest.mark.parametrize("make", [ilql, double])
def test_each_reward_learns_what_it_would_learn_alone(make: Make) -> None:
    """The gradient of q_a, q2_a and v_a equals that of a run on reward_a alone, from the same weights; that of the trunk is the
    sum of both. Bug: a reward, an output or a target of another; the cloned policy counted twice."""
    batch, objectives = batch_of(), for_rewards(make(), REWARDS)
    state = network(objectives, REWARDS).state_dict()
    together, shared = gradients(make, batch, REWARDS), dict[str, Tensor]()
    for place, reward in enumerate(REWARDS):
        alone = gradients(make, replace(batch, reward_BT=batch.reward_BT[..., place]), (), of_one(state, reward))
        for name, gradient in alone.items():
            kind, _, rest = name.removeprefix("projections.").partition(".")
            if kind in ("q", "q2", "v"):
                torch.testing.assert_close(together[f"projections.{named(kind, reward)}.{rest}"], gradient, rtol=1e-4, atol=1e-6)
            else:
                shared[name] = shared.get(name, 0) + gradient
    cloned = gradients(lambda: {"c": cross_entropy(output="policy")}, replace(batch, reward_BT=batch.reward_BT[..., 0]), (), {
        name: value for name, value in of_one(state, "reward_a").items() if ".q2." not in name and ".v." not in name
    }) if make is ilql else {}  # fmt: skip
    for name, gradient in shared.items():
        torch.testing.assert_close(together[name], gradient - cloned.get(name, 0), rtol=1e-4, atol=1e-6)


def test_two_rewards_by_hand() -> None:
    """One decision, then the end: y_i = r_i, loss (1 - 3)^2 / 2 + (10 - 4)^2 / 2. Bug: only the first reward, or their sum."""
    batch = decisions(replace(make_batch([[1]], discount_BT=0.0), reward_BT=torch.tensor([[[3.0, 4.0]]])))
    online = {"q_a": torch.tensor([[[[0.0], [1.0]]]]), "q_other": torch.tensor([[[[7.0], [10.0]]]])}
    td = PerReward(make_td(gamma=0.0), REWARDS)
    assert td.requires.outputs == ("q_a", "q_other") and td.learns_outputs == ("q",)
    result = td(online, None, batch)
    assert result.loss_BT.tolist() == [[2.0 + 18.0]]
    assert result.error_BT is not None and result.error_BT.tolist() == [[(2.0 + 6.0) / 2]]
    assert result.metrics["target/mean_a"].tolist() == [[3.0]] and result.metrics["q/taken_mean_other"].tolist() == [[10.0]]


def test_large_vocabularies_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: deferred outputs read by the name of another reward."""
    full = gradients(ilql, batch_of(), REWARDS)
    monkeypatch.setattr(learners, "MANY_ACTIONS", 1)
    monkeypatch.setattr(deferred, "CHUNK", 7 * A)
    for name, gradient in gradients(ilql, batch_of(), REWARDS).items():
        torch.testing.assert_close(full[name], gradient, rtol=1e-4, atol=1e-6)


# Acting


def policy(kind: Kind = "reweighted", twin: bool = True, acting_q: str = "min") -> tuple[Policy, dict[str, Tensor]]:
    """A policy over three actions, beta 2, and outputs by hand."""
    spec = TaskSpec(num_actions=3, num_tokens=3, row_transitions=2, episode_steps=2, reward_names=REWARDS)
    output = {"policy": torch.tensor([[0.5, 0.3, 0.2]]).log()[..., None], "q_a": torch.tensor([[1.0, 2.0, 3.0]])[..., None],
              "q_other": torch.tensor([[5.0, 4.0, 0.0]])[..., None]}  # fmt: skip
    if twin:
        output |= {"q2_a": torch.tensor([[1.5, 1.0, 9.0]])[..., None], "q2_other": torch.tensor([[5.0, 6.0, -1.0]])[..., None]}
    return Policy(network(double(), ()), HEADS["squared"](), None, None, kind, 1.0, beta=2.0, spec=spec,
                  acting_q=acting_q), output  # type: ignore[arg-type]  # fmt: skip


def q_of(chosen: Policy, output: dict[str, Tensor], **weights: float) -> Tensor:
    chosen.weights = weights_of(weights, REWARDS, "test")
    return chosen.q(output)[0]


def test_weights_1_0_and_0_1_act_by_one_reward_alone() -> None:
    """log pi_b + beta min(Q, Q2) of that reward, by hand. Bug: the minimum over rewards, a weight of the wrong one."""
    chosen, output = policy()
    log_pi = torch.tensor([0.5, 0.3, 0.2]).log()
    torch.testing.assert_close(q_of(chosen, output, reward_a=1), log_pi + 2 * torch.tensor([1.0, 1.0, 3.0]))
    torch.testing.assert_close(q_of(chosen, output, other=1), log_pi + 2 * torch.tensor([5.0, 4.0, -1.0]))
    one = Policy(chosen.network, chosen.head, None, None, "reweighted", 1.0, beta=2.0)
    torch.testing.assert_close(q_of(chosen, output, other=1), one.q(of_reward(output, "other"))[0])
    mean, output = policy(acting_q="mean")
    torch.testing.assert_close(q_of(mean, output, reward_a=1), log_pi + 2 * torch.tensor([1.25, 1.5, 6.0]))


@pytest.mark.parametrize("kind", ["reweighted", "boltzmann"])
def test_values_are_linear_in_the_weights(kind: Kind) -> None:
    """q(w a + u b) - q(0) = w (q(a) - q(0)) + u (q(b) - q(0)). Bug: weights normalised, or squared, or lost without a twin."""
    chosen, output = policy(kind, twin=False)
    nothing, a, b = q_of(chosen, output), q_of(chosen, output, reward_a=1), q_of(chosen, output, other=1)
    both = q_of(chosen, output, reward_a=0.3, other=2.5)
    torch.testing.assert_close(both - nothing, 0.3 * (a - nothing) + 2.5 * (b - nothing))
    assert not a.allclose(b)


def test_without_weights_all_rewards_weigh_the_same() -> None:
    """Bug: the first reward alone acts where nobody has chosen."""
    chosen, _ = policy()
    assert chosen.weights == {"reward_a": 0.5, "other": 0.5}


# Names and weights


def test_names_of_outputs() -> None:
    """Bug: a name that a module may not have, one that hides another, or a policy for each reward."""
    assert [suffix(name) for name in ("reward_a", "a", "my.score", "reward_")] == ["a", "a", "my_score", "reward_"]
    assert named("q2", "reward_a") == "q2_a" and named("policy", "reward_a") == "policy"
    assert plain("v_a", ("reward_a",)) == "v" and plain("v_b", ("reward_a",)) == "v_b" and plain("policy", REWARDS) == "policy"
    assert all_outputs(("v",), ()) == ("q", "v") and all_outputs(("q_a", "v_a"), ("a",)) == ("q_a", "v_a")
    assert first_q(["policy", "q_b", "q_a"]) == "q_b" and all_q(["q", "q2", "v"]) == ["q"]
    assert how_many(("q2", "v"), "q", "q2") == 2 and how_many(("q_a", "q_b", "q2_a", "q2_b", "policy"), "q", "q2") == 4


def test_weights_typed() -> None:
    """Bug: a weight that is lost, or taken for another reward's."""
    assert read_weights("reward_a=1, other=.3", "--weights") == {"reward_a": 1.0, "other": 0.3}
    assert weights_of({"other": 2}, REWARDS, "--weights") == {"reward_a": 0.0, "other": 2.0}
    assert weights_of(None, (), "policy.weights") == {} and weights_of({}, (), "policy.weights") == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reward_b": 1.0}, r"reward_b is no reward of this run; it learned reward_a, other\n  did you mean reward_a\?"),
        ({"reward_a": math.inf}, "must be finite and at least 0"),
        ({"reward_a": -1.0}, "must be finite and at least 0"),
    ],
)
def test_weights_that_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        weights_of(given, REWARDS, "--weights")


@pytest.mark.parametrize("text", ["reward_a", "=1", "reward_a=x", "reward_a=nan", "reward_a=1,reward_a=2", ""])
def test_text_that_is_no_weights(text: str) -> None:
    with pytest.raises(UserError, match="--weights"):
        read_weights(text, "--weights")


def test_weights_of_a_run_on_one_reward_are_refused() -> None:
    with pytest.raises(UserError, match="this run learned one reward"):
        weights_of({"reward_a": 1.0}, (), "--weights")


@pytest.mark.parametrize(
    ("objective", "why"),
    [
        (cross_entropy(), "clones actions into q"),
        (PathConsistency(HEADS["squared"](), True, weight=1.0, temperature=0.5, n=2, reference="none"), "adds the entropy"),
    ],
)
def test_what_is_no_return_is_not_added_up(objective: Objective, why: str) -> None:
    """Bug: logits of a cloned policy summed over rewards as if they were values."""
    with pytest.raises(UserError, match=why):
        for_rewards({"one": objective}, REWARDS)
    assert for_rewards({"one": objective}, ()) == {"one": objective}
