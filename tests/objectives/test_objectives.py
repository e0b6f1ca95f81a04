"""What is learned from a batch: targets by hand and by loop, and what may not leak into the loss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.categorical import Categorical
from dqnlm.heads.quantile import Quantile
from dqnlm.objectives.base import Requirements, combined
from dqnlm.objectives.bootstrap import Double, Max, Munchausen
from dqnlm.objectives.returns import NStep, OneStep
from dqnlm.objectives.td import TD, AllActionsTD, DistributionalTD, TDObjective, td
from dqnlm.types import TERMINATED, Batch, Bounds
from tests.helpers.batches import GAMMA, A, T, decisions, make_batch, random_batch
from tests.helpers.learners import (
    BOUNDS,
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


def batch_of_two_steps(discounts: list[float]) -> Batch:
    return make_batch([[0, 1]], [[1.0, 2.0]], [discounts], observation_BS=[[0, 1, 2]])


@pytest.mark.parametrize(
    ("bootstrap", "legal", "targets"),
    [
        # Qbar(s1) = 3 7 5, Qbar(s2) = 8 4 9; online prefers action 2 at s1 and action 1 at s2.
        ("max", None, [1 + 7 / 2, 2 + 9 / 2]),
        ("double", None, [1 + 5 / 2, 2 + 4 / 2]),
        ("max", [True, False, False], [1 + 3 / 2, 2 + 8 / 2]),
        ("double", [True, True, False], [1 + 3 / 2, 2 + 4 / 2]),
    ],
)
def test_td_by_hand(bootstrap: str, legal: list[bool] | None, targets: list[float]) -> None:
    """Guards networks exchanged, a step off in time, an illegal action in the bootstrap. Gamma 1/2, no end."""
    online = torch.tensor([[[0.0, 0, 0], [2, 1, 3], [0, 6, 5]]])[..., None].requires_grad_()
    target = torch.tensor([[[9.0, 9, 9], [3, 7, 5], [8, 4, 9]]])[..., None]
    batch = decisions(batch_of_two_steps([0.5, 0.5]), None if legal is None else torch.tensor(legal))
    result = make_td(bootstrap=bootstrap)({"q": online}, {"q": target}, batch)
    assert result.metrics["target/mean"].tolist() == [targets]
    assert result.metrics["q/taken_mean"].tolist() == [[0.0, 1.0]]
    best = 3.0 if legal is None else float(max(q for q, ok in zip([2, 1, 3], legal, strict=True) if ok))
    assert result.metrics["q/max_mean"].tolist() == [[0.0, best]]
    assert result.loss_BT.tolist() == [[0.5 * targets[0] ** 2, 0.5 * (targets[1] - 1) ** 2]]
    [slope] = torch.autograd.grad(result.loss_BT.sum(), online)
    assert slope.squeeze().tolist() == [[-targets[0], 0, 0], [0, 1 - targets[1], 0], [0, 0, 0]]  # only the action taken


def test_the_last_observation_is_worth_nothing_where_no_row_is_cut() -> None:
    """Guards an index that shifts all values by one when the last forward is saved: y = 1 + 7 / 2 and 2 + 0."""
    objective = make_td(bootstrap="max", last_has_value=False)
    assert not objective.requires.last_observation and objective.requires.target
    target = torch.tensor([[[9.0, 9, 9], [3, 7, 5]]])[..., None]
    result = objective({"q": torch.zeros(1, 2, 3, 1)}, {"q": target}, decisions(batch_of_two_steps([0.5, 0.0])))
    assert result.metrics["target/mean"].tolist() == [[4.5, 2.0]]


def test_a_partners_steps_carry_the_value() -> None:
    """Guards an earlier decision that bootstraps from the state in which a partner speaks, without his reward.

    The step at 1 is his, with reward 2 and discount 1: v1 = 2 + v2 = 2 + 9, so the decision at 0 aims at 1 + 11 / 2.
    """
    target = torch.tensor([[[9.0, 9, 9], [3, 7, 5], [8, 4, 9]]])[..., None]
    batch = replace(batch_of_two_steps([0.5, 1.0]), mask_BT=torch.tensor([[1.0, 0.0]]))
    result = make_td(bootstrap="max")({"q": torch.zeros(1, 3, 3, 1)}, {"q": target}, decisions(batch, multi_turn=True))
    assert float(result.metrics["target/mean"][0, 0]) == 6.5


def td_loss_by_loops(objective: TDObjective, online_BSAN: Tensor, target_BSAN: Tensor, batch: Batch) -> Tensor:
    """One decision at a time, one action at a time."""
    q, qbar = objective.head.value(online_BSAN), objective.head.value(target_BSAN)
    loss_BT = torch.zeros(batch.reward_BT.shape)
    for b in range(loss_BT.shape[0]):
        for t in range(loss_BT.shape[1]):
            best = int((q if isinstance(objective.bootstrap, Double) else qbar)[b, t + 1].argmax())
            future = batch.discount_BT[b, t] * qbar[b, t + 1, best]
            raw_11AN = online_BSAN[b : b + 1, t : t + 1]
            if not isinstance(objective, AllActionsTD):
                choices = [(int(batch.action_BT[b, t]), batch.reward_BT[b, t])]
            else:
                choices = [(a, (batch.observation_BS[b, t + 1] == a).float()) for a in range(A)]
            loss_BT[b, t] = sum(
                objective.head.loss_taken(raw_11AN, torch.tensor([[a]]), (r + future).view(1, 1)) for a, r in choices
            )
    return loss_BT


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("bootstrap", ["max", "double"])
@pytest.mark.parametrize("feedback", ["taken", "all_actions"])
def test_td_against_loops(head: str, bootstrap: str, feedback: str) -> None:
    """Guards vectorised targets of all rows, times and actions; all_actions is a loop over actions."""
    batch = random_batch()
    objective = make_td(head, bootstrap, feedback=feedback)
    with torch.no_grad():
        online, target = make_network(0)(batch.observation_BS), make_network(1)(batch.observation_BS)
        loss_BT = objective(online, target, decisions(batch)).loss_BT
        expected = td_loss_by_loops(objective, online["q"], target["q"], batch)
    torch.testing.assert_close(loss_BT * batch.mask_BT, expected * batch.mask_BT)


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("feedback", ["taken", "all_actions"])
def test_nothing_of_the_next_observation_leaks(head: str, feedback: str) -> None:
    """Guards trial and error that is told the answer: under `teacher` the next observation IS the rewarded action.

    At gamma 0 only the decision at t is learned from, and everything after o_t, a_t and r_t is replaced: other
    observations (so other references), other actions and rewards. The gradient must stay; with all_actions it must not,
    as every action's reward is read off the next observation.
    """
    for t in (0, 2, T - 1):
        batch, other = random_batch(gamma=0.0), random_batch(gamma=0.0, seed=1)
        mask_BT = torch.zeros_like(batch.mask_BT)
        mask_BT[0, t] = 1
        changed: dict[str, Any] = {}
        for name in ("action_BT", "reward_BT"):
            x, y = getattr(batch, name), getattr(other, name)
            changed[name] = torch.cat([x[:, : t + 1], y[:, t + 1 :]], 1)
        before_BS, after_BS = batch.observation_BS[:, : t + 1], (batch.observation_BS[:, t + 1 :] + 1) % A
        changed["observation_BS"] = torch.cat([before_BS, after_BS], 1)
        one, two = (
            gradient(make_learner(make_td(head, feedback=feedback, gamma=0.0)), b)
            for b in (replace(batch, mask_BT=mask_BT), replace(batch, mask_BT=mask_BT, **changed))
        )
        assert differ(one, two) == (feedback == "all_actions")
        if feedback == "taken":
            assert_close(one, two)
            paid_more = replace(batch, mask_BT=mask_BT, reward_BT=batch.reward_BT + 5)
            assert differ(one, gradient(make_learner(make_td(head, gamma=0.0)), paid_more))


@pytest.mark.parametrize("head", sorted(HEADS))
def test_rewards_that_were_not_earned_change_nothing(head: str) -> None:
    """Guards rewards, actions and values of prompt steps and padding in the loss, also with gamma above 0."""
    batch = random_batch(first=2)
    unlearned = batch.mask_BT == 0
    assert unlearned[:, :2].all() and unlearned[1, -2:].all()
    changed = replace(
        batch,
        reward_BT=batch.reward_BT.masked_fill(unlearned, 1e3),
        action_BT=torch.where(unlearned, (batch.action_BT + 1) % A, batch.action_BT),
    )
    changed.observation_BS[1, -1] = (changed.observation_BS[1, -1] + 1) % A  # beyond the end of that row
    one, two = (gradient(make_learner(make_td(head)), b) for b in (random_batch(first=2), changed))
    assert_close(one, two)


def test_no_credit_across_rows() -> None:
    """Guards a return or a value that runs from one row into the next: row 0's loss knows nothing of the others."""
    batch, other = random_batch(seed=0), random_batch(seed=1)
    names = ("observation_BS", "action_BT", "reward_BT", "discount_BT")
    fields: dict[str, Any] = {name: torch.cat([getattr(batch, name)[:1], getattr(other, name)[1:]]) for name in names}
    mixed = replace(batch, **fields)
    online, target = make_network(0), make_network(1)
    losses = []
    for each in (batch, mixed):
        with torch.no_grad():
            outputs = online(each.observation_BS), target(each.observation_BS)
            losses.append(make_td()(*outputs, decisions(each)).loss_BT)
    torch.testing.assert_close(losses[0][0], losses[1][0])
    assert not torch.allclose(losses[0][1:], losses[1][1:])


def test_credit_flows_back_by_one_step_only() -> None:
    """Guards a value with gradient (residual learning): the target must not move. Only r_t and d_t of the step count."""
    batch = random_batch()
    learner = make_learner(make_td(bootstrap="double"), period=None)  # the online network is its own target
    found = gradient(learner, batch)
    network = make_network(0)
    raw_BSAN = network(batch.observation_BS)["q"]
    q_BSA = raw_BSAN.squeeze(-1)
    target_BT = (batch.reward_BT + batch.discount_BT * q_BSA[:, 1:].amax(-1)).detach()
    taken_BT = q_BSA[:, :-1].gather(-1, batch.action_BT[..., None]).squeeze(-1)
    ((0.5 * (taken_BT - target_BT) ** 2 * batch.mask_BT).sum() / batch.mask_BT.sum()).backward()
    assert_close(found, [p.grad for p in network.parameters() if p.grad is not None])


def test_truncation_bootstraps_and_termination_does_not() -> None:
    """Guards truncation treated as termination: only the truncated rows' last targets differ, by gamma v(s_T)."""
    cut, ended = random_batch(), random_batch(end=TERMINATED)
    network = make_network(0)
    with torch.no_grad():
        raw = network(cut.observation_BS)
        one, two = (make_td(bootstrap="max")(raw, raw, decisions(b)).metrics["target/mean"] for b in (cut, ended))
    difference = one - two
    rows = torch.tensor([0, 2, 3])  # row 1 ends early, by termination in both
    expected = GAMMA * raw["q"].squeeze(-1)[rows, -1].amax(-1)
    torch.testing.assert_close(difference[rows, -1], expected)
    assert (difference[1] == 0).all() and (difference[:, :-1] == 0).all()


def test_cross_entropy_by_loop() -> None:
    """Guards logits shifted by a step, and prompt steps that are cloned."""
    batch = random_batch(first=2)
    learner = make_learner(cross_entropy(), period=None)
    assert not learner.requires.last_observation and not learner.requires.target
    log_BSA = make_network(0)(batch.observation_BS)["q"].squeeze(-1).log_softmax(-1).detach()
    places = [(b, t) for b in range(4) for t in range(T) if batch.mask_BT[b, t]]
    expected = -sum(float(log_BSA[b, t, batch.action_BT[b, t]]) for b, t in places) / len(places)
    right = sum(int(log_BSA[b, t].argmax()) == int(batch.action_BT[b, t]) for b, t in places) / len(places)
    learner.update(batch)
    found = figures(learner)
    assert found["loss/cross_entropy"] == pytest.approx(expected, rel=1e-5)
    assert found["policy/accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    ("head", "feedback", "kind"),
    [("quantile", "taken", DistributionalTD), ("scalar", "taken", TD), ("scalar", "all_actions", AllActionsTD)],
)
def test_the_head_and_the_feedback_choose_the_loss(head: str, feedback: str, kind: type) -> None:
    """Bug: a distribution learned as its mean alone, or rewards of all actions that nothing reads."""
    heads = {"quantile": Quantile(BOUNDS, num_quantiles=3, kappa=1.0), "scalar": HEADS["squared"]()}
    reward_all = (lambda observation_BS: torch.zeros(1, 1, 1)) if feedback == "all_actions" else None
    objective = td(heads[head], Max(), OneStep(), reward_all, True, True, weight=1.0, twin=False)
    assert type(objective) is kind


def test_losses_that_are_not_derived_are_refused() -> None:
    """Bug: settings under which one part is silently left out: the head's distribution, later rewards, or the bonus."""

    def reward_all(observation_BS: Tensor) -> Tensor:
        raise AssertionError("it is not asked")

    scalar, munchausen = HEADS["squared"](), Munchausen(alpha=0.9, temperature=0.3, clip_low=-1.0)
    distribution = Quantile(BOUNDS, num_quantiles=3, kappa=1.0)
    with pytest.raises(UserError, match=r"Quantile predicts a distribution .*feedback=taken"):
        td(distribution, Max(), OneStep(), reward_all, True, True, weight=1.0, twin=False)
    for bootstrap, returns in ((Max(), NStep(n=2)), (munchausen, OneStep())):
        with pytest.raises(UserError, match="returns=one_step"):
            td(scalar, bootstrap, returns, reward_all, True, True, weight=1.0, twin=False)


def test_requirements_of_several_objectives() -> None:
    """Bug: an objective that gets no target, or rows too short for its returns, because another needs none."""
    one = Requirements(target=True, outputs=("v", "q2"), lookahead=3)
    two = Requirements(last_observation=True, outputs=("policy", "v"))
    both = combined([one, two])
    assert both == Requirements(target=True, last_observation=True, outputs=("policy", "q2", "v"), lookahead=3)
    assert combined([one, Requirements(lookahead=None)]).lookahead is None


def test_of_two_q_functions_the_smaller_counts() -> None:
    """Bug: the smaller raw number in the place of the smaller value, or a second function that is not read."""
    head = HEADS["logistic"]()
    raw, other = torch.tensor([[-1.0, 2.0]])[..., None], torch.tensor([[0.0, 1.0]])[..., None]
    expected = torch.minimum(head.value(raw), head.value(other))
    assert torch.equal(head.q({"q": raw, "q2": other, "v": raw - 9}), expected)
    assert torch.equal(head.q({"q": raw}), head.value(raw))


@pytest.mark.parametrize("smaller", ["q", "q2"])
def test_of_two_distributions_that_of_the_smaller_mean_is_the_target(smaller: str) -> None:
    """Bug: clipped double with a distributional head takes the atoms of q, whichever is smaller.

    At the next state the means are 5 and 1 at both actions; their atoms are 4 and 6, or 0 and 2. Gamma 1/2, reward 1.
    """
    head = Quantile(Bounds(-100.0, 100.0), num_quantiles=2, kappa=0.0)
    few = torch.tensor([[[[0.0, 0.0]] * 2, [[0.0, 2.0]] * 2]])
    many = torch.tensor([[[[0.0, 0.0]] * 2, [[4.0, 6.0]] * 2]])
    raw = {"q": few, "q2": many} if smaller == "q" else {"q": many, "q2": few}
    objective = td(head, Max(), OneStep(), None, True, True, weight=1.0, twin=True)
    assert isinstance(objective, DistributionalTD)
    batch = decisions(make_batch([[0]], [[1.0]], [[0.5]], observation_BS=[[0, 1]]))
    z_BTM, p_BTM = objective._target_atoms(head, raw, raw, batch)
    assert z_BTM.flatten().tolist() == [1.0, 2.0] and p_BTM.flatten().tolist() == [0.5, 0.5]
    error_BT = objective(raw, raw, batch).error_BT
    assert error_BT is not None and error_BT.tolist() == [[1.5]]


def test_the_error_is_that_of_the_action_taken() -> None:
    """Bug: priorities by the target less the greatest Q. As in `test_td_by_hand`, max: targets 4.5 and 6.5, Q taken 2 and 1."""
    online = torch.tensor([[[2.0, 9, 0], [2, 1, 3], [0, 6, 5]]])[..., None]
    target = torch.tensor([[[9.0, 9, 9], [3, 7, 5], [8, 4, 9]]])[..., None]
    batch = decisions(batch_of_two_steps([0.5, 0.5]))
    for objective in (make_td(bootstrap="max"), make_td(bootstrap="max", twin=True)):
        result = objective({"q": online, "q2": online}, {"q": target, "q2": target}, batch)
        assert result.error_BT is not None and result.error_BT.tolist() == [[2.5, 5.5]]


def test_double_chooses_by_the_online_network_also_among_distributions() -> None:
    """Bug: the target network chooses as well as values. Online prefers action 1 at the next state, the target action 0."""
    head = Quantile(Bounds(-100.0, 100.0), num_quantiles=2, kappa=0.0)
    online = torch.tensor([[[[0.0, 0.0]] * 2, [[1.0, 1.0], [2.0, 2.0]]]])
    target = torch.tensor([[[[0.0, 0.0]] * 2, [[5.0, 7.0], [3.0, 4.0]]]])
    batch = decisions(make_batch([[0]], [[1.0]], [[0.5]], observation_BS=[[0, 1]]))
    for bootstrap, expected in ((Double(), [2.5, 3.0]), (Max(), [3.5, 4.5])):
        objective = td(head, bootstrap, OneStep(), None, True, True, weight=1.0, twin=False)
        assert isinstance(objective, DistributionalTD)
        z_BTM, _ = objective._target_atoms(head, {"q": online}, {"q": target}, batch)
        assert z_BTM.flatten().tolist() == expected


@pytest.mark.parametrize("smaller", ["q", "q2"])
@pytest.mark.parametrize("head", ["squared", "huber", "logistic"])
def test_a_state_has_the_smaller_of_two_values(smaller: str, head: str) -> None:
    """Bug: the greater Q, or that of the first alone. Both outputs aim at the same: reward 0, gamma 1/2, values 1.6 and .4."""
    meaning = HEADS[head]()
    low, high = ((0.4, 1.6) if head != "logistic" else (-1.3863, 1.3863))  # the logits of .2 and .8
    small, great = (torch.tensor([0.0, 0.0, x, x]).view(1, 2, 2, 1) for x in (low, high))
    raw = {"q": small, "q2": great} if smaller == "q" else {"q": great, "q2": small}
    torch.testing.assert_close(meaning.value(small)[0, 1], torch.tensor([0.4, 0.4]), atol=1e-3, rtol=0)
    for bootstrap in ("max", "double"):
        result = make_td(head, bootstrap, twin=True)(raw, raw, decisions(make_batch([[0]], 0.0, 0.5, observation_BS=[[0, 1]])))
        assert float(result.metrics["target/mean"]) == pytest.approx(0.2, abs=1e-3)


def test_the_bonus_of_munchausen_is_that_of_the_target_at_decisions_alone() -> None:
    """Bug: log pi of the online network, or a bonus at a partner's steps, which the earlier decision then earns.

    Actions 0 and 1 of Qbar 3 7 5; T .3, alpha .9: T log pi(0) = 3 - 7 - .0004 clipped at -1, T log pi(1) = -.0004. Step 1 is
    a partner's (reward 2, discount 1): y_0 = 1 - .9 + .5 (2 + v), v = 9.
    """
    target = torch.tensor([[[3.0, 7, 5], [3, 7, 5], [8, 4, 9]]])[..., None]
    online = {"q": torch.tensor([[[7.0, 0, 0], [7, 0, 0], [7, 0, 0]]])[..., None]}
    batch = replace(batch_of_two_steps([0.5, 1.0]), mask_BT=torch.tensor([[1.0, 0.0]]))
    batch.action_BT = torch.tensor([[0, 0]])  # also his action is one that gets the least bonus
    result = make_td(bootstrap="munchausen")(online, {"q": target}, decisions(batch, multi_turn=True))
    soft = 9 + 0.3 * math.log(1 + math.exp(-1 / 0.3) + math.exp(-5 / 0.3))
    assert float(result.metrics["target/mean"][0, 0]) == pytest.approx(1 - 0.9 + 0.5 * (2 + soft), abs=1e-4)
    alone = make_td(bootstrap="munchausen")(online, {"q": target}, decisions(batch_of_two_steps([0.5, 0.5])))
    log_pi = -0.3 * math.log1p(math.exp(-2 / 0.3))  # times T
    assert float(alone.metrics["target/mean"][0, 1]) == pytest.approx(2 + 0.9 * log_pi + soft / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("legal", "probabilities"), [(None, [0.25, 0.75]), ([True, True], [0.25, 0.75]), ([False, True], [0.5, 0.5])]
)
def test_a_distribution_is_that_of_the_next_states_best_legal_action(
    legal: list[bool] | None, probabilities: list[float]
) -> None:
    """Bug: an illegal action's distribution, or probabilities of the present state beside atoms of the next.

    Atoms 0 and 4. Next state: action 0 has them with 1/4 and 3/4 (mean 3), action 1 with 1/2 each. Reward 1, gamma 1/2.
    """
    head = Categorical(Bounds(0.0, 4.0), low=None, high=None, num_atoms=2, temperature=None)
    raw = {"q": torch.tensor([[[[9.0, 0.0], [9.0, 0.0]], [[0.0, math.log(3.0)], [0.0, 0.0]]]])}
    objective = td(head, Max(), OneStep(), None, True, True, weight=1.0, twin=False)
    assert isinstance(objective, DistributionalTD)
    batch = make_batch([[0]], [[1.0]], [[0.5]], observation_BS=[[0, 1]])
    z_BTM, p_BTM = objective._target_atoms(head, raw, raw, decisions(batch, None if legal is None else torch.tensor(legal)))
    assert z_BTM.flatten().tolist() == [1.0, 3.0] and p_BTM.flatten().tolist() == pytest.approx(probabilities)
