"""The update: masks, weights, copies of a text, rows whose first times are not computed, sums of objectives, clipping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dqnlm.agent.learner import mean_loss
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator
from dqnlm.objectives.base import LossOutput
from dqnlm.types import Batch
from tests.helpers.batches import decisions, make_batch, random_batch
from tests.helpers.learners import (
    HEADS,
    assert_close,
    cross_entropy,
    differ,
    figures,
    gradient,
    make_learner,
    make_network,
    make_td,
)


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("last_has_value", [True, False])
@pytest.mark.parametrize("feedback", ["taken", "all_actions"])
def test_a_late_first_decision_equals_all_times_masked(head: str, last_has_value: bool, feedback: str) -> None:
    """Guards fields cut at another time than the outputs: skipping the first times must change nothing but the work."""
    results = []
    for first in (3, 0):
        batch = replace(random_batch(first=3), first=first)
        learner = make_learner(
            make_td(head, feedback=feedback, last_has_value=last_has_value),
            cross_entropy(weight=0.5),
        )
        results.append((gradient(learner, batch), figures(learner)))
    assert_close(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("first", [0, 2])
def test_copies_of_a_text_equal_separate_forwards(head: str, first: int) -> None:
    """Guards the outputs of one text paired with the rows of another, and a gradient that counts one copy only."""
    results = []
    for copies in (3, 1):
        batch = replace(random_batch(rows=6, first=first, copies=3), copies=copies)
        learner = make_learner(make_td(head))
        results.append((gradient(learner, batch), figures(learner)))
    assert_close(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)


def test_copies_are_one_forward() -> None:
    """Guards the saving itself: four copies of two texts go through the network as two rows."""
    learner, seen = make_learner(), []
    learner.network.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    learner.update(random_batch(rows=8, copies=4))
    assert seen[0] == (2, 7)


def one_row(batch: Batch, b: int) -> Batch:
    fields: dict[str, Any] = {name: x[b : b + 1] for name, x in vars(batch).items() if isinstance(x, torch.Tensor)}
    return replace(batch, **fields)


@pytest.mark.fault("prioritised weights ignored where the loss is Huber")
@pytest.mark.parametrize("head", sorted(HEADS))
def test_importance_weights_scale_each_row(head: str) -> None:
    """Guards weights that are ignored (Tianshou with Huber), squared, or normalised away.

    The gradient is sum_b w_b g_b n_b / n, with g_b that of row b alone and n_b its decisions.
    """
    weight_B = torch.tensor([0.0, 2.0, 0.5, 1.0])
    batch = random_batch()
    found = gradient(make_learner(make_td(head)), replace(batch, weight_B=weight_B))
    expected = [torch.zeros_like(g) for g in found]
    for b in range(4):
        share = float(weight_B[b] * batch.mask_BT[b].sum() / batch.mask_BT.sum())
        for total, part in zip(expected, gradient(make_learner(make_td(head)), one_row(batch, b)), strict=True):
            total += share * part
    assert_close(found, expected)
    assert differ(found, gradient(make_learner(make_td(head)), batch))


def test_objectives_add_up_with_their_weights() -> None:
    """Guards a weight that is ignored, and one objective that hides another."""
    batch = random_batch()
    both = gradient(
        make_learner(make_td(weight=0.25), cross_entropy(weight=3.0)),
        batch,
    )
    td, cloning = (gradient(make_learner(o), batch) for o in (make_td(), cross_entropy()))
    assert_close(both, [0.25 * a + 3.0 * b for a, b in zip(td, cloning, strict=True)])


def test_the_error_is_that_of_the_first_objective_that_has_one() -> None:
    """Bug: priorities by the objective that happens to be named last. The two aim at values of different networks' choice."""
    batch = random_batch()
    parts = {"cloning": cross_entropy(), "first": make_td(bootstrap="double"), "last": make_td(bootstrap="soft")}
    learner = make_learner(parts["first"])
    learner.objectives = parts
    found, alone = learner.update(batch), make_learner(parts["first"]).update(batch)
    assert found is not None and alone is not None
    torch.testing.assert_close(found, alone)
    other = make_learner(parts["last"]).update(batch)
    assert other is not None and float((found - other).abs().max()) > 0.01


def test_a_loss_is_that_of_the_decisions_to_learn_from() -> None:
    """Bug: decisions that stand in a window for another one's return alone are learned from. Weights 3 and 1, by hand."""
    learn_BT = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    batch = decisions(make_batch([[0, 0, 0]] * 2, learn_BT=learn_BT, weight_B=[3.0, 1.0]))
    loss = LossOutput(torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]), {})
    assert float(mean_loss(loss, batch, torch.tensor(2.0), 2)) == (3 * 2 + 8) / 2
    whole = LossOutput(torch.tensor([5.0, 7.0]), {})
    assert float(mean_loss(whole, batch, torch.tensor(2.0), 2)) == (3 * 5 + 7) / 2


def test_it_learns_in_training_mode() -> None:
    """Bug: an evaluation leaves the network in its own mode, and dropout is off for the rest of the run."""
    learner = make_learner()
    learner.network.eval()
    seen: list[bool] = []
    learner.network.body.register_forward_hook(lambda module, given, output: seen.append(module.training))
    learner.update(random_batch())
    assert seen and all(seen) and learner.network.training and not learner.target.network.training


def test_a_batch_without_decisions_moves_nothing() -> None:
    """Guards 0 / 0, which turns every weight into NaN at once."""
    learner = make_learner()
    batch = random_batch()
    assert all((g == 0).all() for g in gradient(learner, replace(batch, mask_BT=torch.zeros_like(batch.mask_BT))))
    assert all(
        torch.equal(a, b) for a, b in zip(learner.network.parameters(), make_network().parameters(), strict=True)
    )
    assert int(learner.transitions) == 0


def test_figures_are_means_over_decisions() -> None:
    """Guards means over padding and prompt, and a count of transitions that includes them: 4 rows of 6, first 2 steps
    prompt, two steps of row 1 missing: 14 decisions."""
    learner, batch = make_learner(), random_batch(first=2)
    q_BTA = make_network()(batch.observation_BS)["q"].squeeze(-1)[:, :-1].detach()
    taken_BT = q_BTA.gather(-1, batch.action_BT[..., None]).squeeze(-1)
    learner.update(batch)
    found = figures(learner)
    assert int(learner.transitions) == 14
    assert found["q/taken_mean"] == pytest.approx(float(taken_BT[batch.mask_BT > 0].mean()), rel=1e-4)
    assert found["q/max_mean"] == pytest.approx(float(q_BTA.amax(-1)[batch.mask_BT > 0].mean()), rel=1e-4)
    assert found["target/clamped_share"] == 0


def norm(gradients: list[torch.Tensor]) -> float:
    return float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())


def test_clipping() -> None:
    """Guards clipping element by element or layer by layer, and a logged norm taken after it."""
    free = gradient(make_learner(), random_batch())
    assert norm(free) > 0.02
    learner = make_learner(gradient_clip=0.01)
    clipped = gradient(learner, random_batch())
    assert norm(clipped) == pytest.approx(0.01, rel=1e-3)
    assert_close([g * 0.01 / norm(free) for g in free], clipped)
    assert figures(learner)["grad/norm"] == pytest.approx(norm(free), rel=1e-4)
    assert_close(gradient(make_learner(gradient_clip=1e3), random_batch()), free)


def test_the_target_network_values_and_is_not_trained() -> None:
    """Guards a target that is the online network in disguise, and gradients or optimizer steps that reach it."""
    one, two = make_learner(), make_learner()
    with torch.no_grad():
        for parameter in two.target.network.parameters():
            parameter.mul_(2)
    before = [p.clone() for p in one.target.network.parameters()]
    assert differ(gradient(one, random_batch()), gradient(two, random_batch()))
    assert all(torch.equal(a, b) for a, b in zip(before, one.target.network.parameters(), strict=True))
    assert all(p.grad is None for p in one.target.network.parameters())


def test_gamma_0_needs_no_target_forward() -> None:
    """Guards a third of the time of an update wasted on values that no target uses."""
    learner = make_learner(make_td(gamma=0.0))

    def fail(*_: object) -> None:
        raise AssertionError("the target network was run")

    learner.target.network.register_forward_pre_hook(fail)
    learner.update(random_batch(gamma=0.0))
    assert not learner.requires.target and not learner.requires.last_observation


def test_an_update_lowers_the_loss() -> None:
    """Guards a gradient with the wrong sign, or an optimizer that holds other weights than the network."""
    learner, batch = make_learner(), random_batch()
    losses = []
    for _ in range(30):
        learner.update(batch)
        losses.append(figures(learner)["loss/td"])
    assert losses[-1] < 0.5 * losses[0]
    assert learner.updates == 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gradient_clip", 0.0), ("burn_in", -1), ("kl_weight", -1.0),
        ("kl_temperature", 0.0), ("micro_batch_size", 0),
    ],
)  # fmt: skip
def test_user_errors(name: str, value: float) -> None:
    """Bug: a number outside its range that trains all the same, to nothing or to NaN."""
    with pytest.raises(UserError, match=f"learner.{name}"):
        make_learner(**{name: value})


def test_bfloat16_gives_nearly_the_same_gradient() -> None:
    """Guards losses and targets computed in bfloat16, whose steps near 100 are 0.5 apart: only forwards may be."""
    learner = make_learner(make_td("logistic"), precision="bfloat16")
    found, exact = gradient(learner, random_batch()), gradient(make_learner(make_td("logistic")), random_batch())
    difference = norm([a - b for a, b in zip(found, exact, strict=True)])
    assert 0 < difference < 0.05 * norm(exact)
    assert all(g.dtype == torch.float32 for g in found)


def test_masked_means_of_many_figures_are_those_of_each_alone() -> None:
    mask_BT = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    figures = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, 3, dtype=torch.bfloat16)}
    together, apart = Accumulator(torch.device("cpu")), Accumulator(torch.device("cpu"))
    for _ in range(2):
        together.add_means(figures, mask_BT)
        for name, value_BT in figures.items():
            apart.add(name, (value_BT * mask_BT).sum(), mask_BT.sum())
    assert together.pop_means() == apart.pop_means() == {"a": 5 / 3, "b": 1.0}


def test_the_target_follows_after_the_step_at_the_rate_of_this_update() -> None:
    """Bug: a copy of the weights before the step, or the rate of the update after: warm-up over 4 begins with a quarter."""
    learner = make_learner(period=1)
    learner.optimization.warmup = 4
    for update in range(1, 5):
        learner.update(random_batch(seed=update))
        online = learner.network.state_dict()
        assert all(torch.equal(value, online[name]) for name, value in learner.target.network.state_dict().items())
        [optimizer] = learner.optimization.optimizers
        assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.01 * update / 4] * 2)


def test_the_step_sees_clipped_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: gradients are clipped after the step, which Adam's own scale hides."""
    learner, norms = make_learner(gradient_clip=1e-3), []
    apply = learner.optimization.apply

    def watched() -> None:
        norms.append(float(torch.stack([p.grad.square().sum() for p in learner.parameters if p.grad is not None]).sum().sqrt()))
        apply()

    monkeypatch.setattr(learner.optimization, "apply", watched)
    learner.update(random_batch())
    assert norms == pytest.approx([1e-3], rel=1e-3)
