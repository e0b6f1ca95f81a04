"""Objectives beside td by hand, a target of the heads alone, burn-in, and losses of a whole row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from dqnlm.agent.target import Target
from dqnlm.errors import UserError
from dqnlm.networks.base import QNetwork
from dqnlm.objectives.base import Objective
from dqnlm.objectives.conservative import Conservative
from dqnlm.objectives.expectile_value import ExpectileValue
from dqnlm.objectives.large_margin import LargeMargin
from dqnlm.objectives.path_consistency import PathConsistency
from dqnlm.objectives.trajectory import Trajectory
from dqnlm.types import Decisions
from tests.helpers.batches import T, decisions, make_batch, random_batch
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

ALL, FIRST_TWO = None, torch.tensor([True, True, False])  # legal actions


def one_decision(
    action: int, reward: float = 0.0, discount: float = 0.5, legal_A: torch.Tensor | None = None
) -> Decisions:
    return decisions(make_batch([[action]], reward, discount, observation_BS=[[0, 1]]), legal_A)


def two_decisions() -> Decisions:
    """Actions 1 and 2 with rewards 4 and 5, and a padded step."""
    return decisions(make_batch([[1, 2, 0]], [[4.0, 5.0, 0.0]], mask_BT=[[1.0, 1.0, 0.0]], length_B=[2]))


Q = torch.tensor([[[1.0, 3.0, 6.0]]])[..., None]  # one state, three actions


@pytest.mark.parametrize(
    ("objective", "legal_A", "action", "loss"),
    [
        # max(1, 3 + 2, 6 + 2) - 1, all of it the violation by action 2.
        (LargeMargin(HEADS["squared"](), weight=1.0, margin=2.0), ALL, 0, 7.0),
        # max(1 + 2, 3 + 2, 6) - 6: the demonstrated action leads by more than the margin.
        (LargeMargin(HEADS["squared"](), weight=1.0, margin=2.0), ALL, 2, 0.0),
        # Action 2 is illegal, so action 1 is the rival: 3 + 2 - 1.
        (LargeMargin(HEADS["squared"](), weight=1.0, margin=2.0), FIRST_TWO, 0, 4.0),
        # log(e^1 + e^3 + e^6) - 3 = 6 + log(1 + e^-3 + e^-5) - 3 = 3.0550 (T 1)
        (Conservative(HEADS["squared"](), weight=1.0, temperature=1.0), ALL, 1, 3.0550),
        # 2 log(e^.5 + e^1.5) - 3 = 3 + 2 log(1 + e^-1) - 3 = .6265 (T 2, action 2 illegal)
        (Conservative(HEADS["squared"](), weight=1.0, temperature=2.0), FIRST_TWO, 1, 0.6265),
        # -log softmax: the same as the first conservative one, logits 1 3 6.
        (cross_entropy(), ALL, 1, 3.0550),
        # log(e^1 + e^3) - 3 = log(1 + e^-2) = .1269
        (cross_entropy(), FIRST_TWO, 1, 0.1269),
    ],
)
def test_losses_by_hand(objective: Objective, legal_A: torch.Tensor | None, action: int, loss: float) -> None:
    """Bug: another action's Q, a sign, an illegal action among the rivals."""
    result = objective({"q": Q}, None, one_decision(action, legal_A=legal_A))
    assert float(result.loss_BT) == pytest.approx(loss, abs=1e-4)


def test_logged_actions_that_are_illegal_now_have_a_finite_loss() -> None:
    """Bug: a log of another time makes the loss infinite."""
    result = cross_entropy()({"q": Q}, None, one_decision(2, legal_A=FIRST_TWO))
    assert float(result.loss_BT) == pytest.approx(float(Q.flatten().logsumexp(0)) - 6.0, abs=1e-5)


def test_expectile_by_hand() -> None:
    """Bug: the online q, the larger of two q, or the wrong side. min(3, 2) - 1.5 = .5: .9 x .25 / 2; with v 4: .1 x 4 / 2."""
    objective = ExpectileValue(HEADS["squared"](), weight=1.0, expectile=0.9)
    target = {"q": Q, "q2": Q - 1.0}
    for v, loss in ((1.5, 0.9 * 0.25 / 2), (4.0, 0.1 * 4.0 / 2)):
        online = {"q": Q * 100, "v": torch.tensor(v).view(1, 1, 1, 1)}
        assert float(objective(online, target, one_decision(1)).loss_BT) == pytest.approx(loss, abs=1e-6)


def test_path_consistency_by_hand() -> None:
    """Bug: entropy with the wrong sign or at the wrong time.

    One state, one step: residual = r + gamma Vbar(s') - Q(s, a). With r 2, gamma .5, Qbar(s') = 1 3 6 and T 1,
    Vbar = 6 + log(1 + e^-3 + e^-5) = 6.0550; Q(s, 1) = 3: 2 + 3.0275 - 3 = 2.0275, squared and halved 2.0554.
    """
    objective = PathConsistency(HEADS["squared"](), True, weight=1.0, temperature=1.0, n=1, reference="none")
    result = objective({"q": torch.cat([Q, Q], 1)}, {"q": torch.cat([Q, Q], 1)}, one_decision(1, reward=2.0))
    assert float(result.loss_BT) == pytest.approx(2.0554, abs=2e-4)
    # With action 2 illegal: Vbar = 3 + log(1 + e^-2) = 3.1269, residual 2 + 1.5635 - 3 = .5635.
    legal = objective({"q": torch.cat([Q, Q], 1)}, {"q": torch.cat([Q, Q], 1)}, one_decision(1, reward=2.0, legal_A=FIRST_TWO))
    assert float(legal.loss_BT) == pytest.approx(0.5 * 0.5635**2, abs=2e-4)
    with pytest.raises(UserError, match="at least 1"):
        PathConsistency(HEADS["squared"](), True, weight=1.0, temperature=1.0, n=0, reference="none")


def test_trajectory_by_hand() -> None:
    """Bug: the start's value with the wrong sign, padding that counts, or a mean over steps in place of their sum.

    Two decisions with Q 1 3 6 each, actions 1 and 2, rewards 4 and 5, T 1; V = 6.0550, T log pi = Q - V.
    residual = 9 - (3 - V) - (6 - V) - V = 0 + V = 6.0550, squared and halved 18.33. A padded step changes nothing.
    """
    objective = Trajectory(HEADS["squared"](), weight=1.0, temperature=1.0, reference="none", baseline="value")
    online = {"q": torch.cat([Q, Q, Q * 7], 1)}
    result = objective(online, None, two_decisions())
    assert result.loss_BT.shape == (1,) and float(result.loss_BT) == pytest.approx(0.5 * 6.0550**2, abs=1e-3)


def test_a_reference_policy_takes_the_place_of_the_entropy() -> None:
    """Bug: the reference's log-probability with the wrong sign, its value in the place of its log-probability, a gradient.

    Q 1 3 6, V = 6.0550; the reference's Q 2 2 4, its V = 4 + log(1 + 2 e^-2) = 4.2395, T log pi_ref = -2.2395 (action 1) and
    -.2395 (action 2). One step, action 1, reward 2, episode over: residual = 2 - 2.2395 - (3 - V) - V = -3.2395.
    Two decisions as in `test_trajectory_by_hand`: 6.0550 - 2.2395 - .2395 = 3.5760.
    """
    reference = {"q": torch.tensor([2.0, 2.0, 4.0]).view(1, 1, 3, 1).requires_grad_()}
    path = PathConsistency(HEADS["squared"](), False, weight=1.0, temperature=1.0, n=None, reference="start")
    assert path.requires.reference
    loss_BT = path({"q": Q}, None, one_decision(1, reward=2.0, discount=0.0), reference).loss_BT
    assert float(loss_BT.detach()) == pytest.approx(0.5 * 3.2395**2, abs=1e-3) and not loss_BT.requires_grad
    whole = Trajectory(HEADS["squared"](), weight=1.0, temperature=1.0, reference="start", baseline="value")
    found = whole({"q": torch.cat([Q, Q, Q * 7], 1)}, None, two_decisions(), {"q": torch.cat([reference["q"]] * 3, 1)})
    assert float(found.loss_BT) == pytest.approx(0.5 * 3.5760**2, abs=1e-3)


def test_siblings_are_compared_with_each_other() -> None:
    """Bug: rows of another prompt in the mean, the answer taken for part of the prompt, a gradient into the value.

    T 1, one decision each with Q 1 3 6 (V = 6.0550, log pi = -5.0550, -3.0550, -.0550). Rows 0 and 1 read 7, row 2 reads 8:
    x = 4 + 3.0550 = 7.0550, 1 + .0550 = 1.0550 and 2 + 5.0550 = 7.0550. Deviations from the mean of the same prompt (4.0550):
    3, -3 and 0, squared and halved 4.5, 4.5 and 0. All Q of a row greater by 10: the same.
    """
    objective = Trajectory(HEADS["squared"](), weight=1.0, temperature=1.0, reference="none", baseline="group")
    batch = decisions(make_batch([[1], [2], [0]], [[4.0], [1.0], [2.0]], observation_BS=[[7, 1], [7, 2], [8, 0]]))
    for offset in (0.0, 10.0):
        q_B1A1 = (torch.cat([Q] * 3) + torch.tensor([offset, 0.0, 0.0]).view(3, 1, 1, 1)).requires_grad_()
        loss_B = objective({"q": q_B1A1}, None, batch).loss_BT
        assert loss_B.tolist() == pytest.approx([4.5, 4.5, 0.0], abs=2e-3)
        [gradient] = torch.autograd.grad(loss_B.sum(), [q_B1A1])
        for row, (deviation, action) in enumerate([(3.0, 1), (-3.0, 2), (0.0, 0)]):
            towards_A = torch.nn.functional.one_hot(torch.tensor(action), 3) - Q.flatten().softmax(0)
            torch.testing.assert_close(gradient[row].flatten(), -deviation * towards_A, atol=2e-3, rtol=1e-3)


def test_normaliser_of_cloning() -> None:
    """Q 1 3 6, Z = 6.0550: cloning action 2 costs Z - 6 = .0550, and with weight .1 another .05 Z^2 = 1.8332."""
    objective = cross_entropy(normaliser_weight=0.1)
    assert float(objective({"q": Q}, None, one_decision(2)).loss_BT) == pytest.approx(0.0550 + 1.8332, abs=1e-3)
    with pytest.raises(UserError, match="normaliser_weight"):
        cross_entropy(normaliser_weight=-0.1)


def test_losses_of_rows_are_averaged_with_their_weights() -> None:
    """Bug: a loss of a row counted once for each of its steps, or without its importance weight."""
    batch = random_batch()
    batch.weight_B = torch.tensor([1.0, 0.5, 0.0, 2.0])
    learner = make_learner(
        Trajectory(HEADS["squared"](), weight=1.0, temperature=0.5, reference="none", baseline="value"),
        period=None,
    )
    with torch.no_grad():
        [objective] = learner.objectives.values()
        each_B = objective(make_network(0)(batch.observation_BS[:, :-1]), None, decisions(batch)).loss_BT
    learner.update(batch)
    assert figures(learner)["loss/td"] == pytest.approx(float((each_B * batch.weight_B).mean()), rel=1e-5)


def test_burn_in_leaves_out_the_first_decisions_alone() -> None:
    """Bug: burn-in that counts prompt steps, or that changes the returns of what comes after it."""
    batch = random_batch(first=1)
    warm = make_learner(make_td(), burn_in=2)
    late = replace(batch, learn_BT=batch.mask_BT * (torch.arange(T) >= 3))
    one, two, all_of_it = (
        gradient(warm, batch),
        gradient(make_learner(make_td()), late),
        gradient(make_learner(make_td()), batch),
    )
    assert_close(one, two)
    assert differ(one, all_of_it)


@pytest.mark.parametrize("settings", [{"period": 2, "polyak_rate": None}, {"period": None, "polyak_rate": 0.5}])
def test_a_target_of_the_heads_shares_the_trunk(settings: dict[str, Any]) -> None:
    """Bug: a trunk that is copied all the same, heads that are not, or a state that cannot be put back."""
    online = make_network(0)
    following = Target(online, heads_only=True, **settings)
    assert following.network.body is online.body and following.network.encoder is online.encoder
    assert following.network.projections["q"] is not online.projections["q"]
    before = [p.clone() for p in following.network.projections.parameters()]
    with torch.no_grad():
        for parameter in online.parameters():
            parameter += 1.0
    own = list(following.network.projections.parameters())
    assert all(a.equal(b) for a, b in zip(own, before, strict=True)), "it follows at updates only"
    assert all(p.requires_grad for p in online.parameters()) and not any(p.requires_grad for p in own)
    following.update(2)
    assert not any(a.equal(b) for a, b in zip(own, before, strict=True))
    saved = {k: v.clone() for k, v in following.state_dict().items()}
    other = Target(make_network(1), heads_only=True, **settings)
    other.load_state_dict(saved)
    assert all(a.equal(b) for a, b in zip(own, other.network.projections.parameters(), strict=True))
    assert not any(name.startswith(("body", "encoder")) for name in saved)


def test_heads_only_gives_the_gradient_of_two_forwards() -> None:
    """Bug: the shared forward lets a gradient through the target, or reads other features."""
    batch = random_batch()

    def halved(heads_only: bool) -> Callable[[QNetwork], Target]:
        def make(online: QNetwork) -> Target:
            target = Target(online, period=100, polyak_rate=None, heads_only=heads_only)
            with torch.no_grad():
                for parameter in target.network.projections.parameters():
                    parameter *= 0.5
            return target

        return make

    apart, shared = (make_learner(make_td(bootstrap="double"), target_of=halved(only)) for only in (False, True))
    assert_close(gradient(apart, batch), gradient(shared, batch))


def test_a_rows_end_is_valued_as_the_next_row_will_see_it() -> None:
    """Bug: where rows begin afresh after a cut, the bootstrap reads a value in a context that no decision ever has.

    With context_carry=2 the value at a row's end equals that of a row of its last two observations alone; values before the end,
    and gradients of what is learned, keep their context.
    """
    batch = random_batch()
    network, target = make_network(0), make_network(50)
    learner = make_learner(make_td(bootstrap="max"), context_carry=2)
    with torch.no_grad():
        online, found, _ = learner.forwards(decisions(batch))
        whole = target(batch.observation_BS)["q"]
        assert found is not None
        for b, length in enumerate(batch.length_B.tolist()):
            alone = target(batch.observation_BS[b : b + 1, length - 1 : length + 1])["q"][0, -1]
            torch.testing.assert_close(found["q"][b, length], alone)
            torch.testing.assert_close(found["q"][b, :length], whole[b, :length])
            assert not torch.allclose(found["q"][b, length], whole[b, length])
        torch.testing.assert_close(online["q"], network(batch.observation_BS[:, :-1])["q"])
    half = replace(decisions(batch), cut_B=torch.arange(batch.length_B.numel()) % 2 == 0)
    ends = learner.forwards(half).target
    assert ends is not None
    for b, length in enumerate(batch.length_B.tolist()):  # a window that ends before its row keeps its context
        torch.testing.assert_close(ends["q"][b, length], (whole if b % 2 else found["q"])[b, length])
    double = make_learner(make_td(bootstrap="double"), context_carry=2)
    chosen = double.forwards(decisions(batch)).online
    alone = network(batch.observation_BS[:1, T - 1 : T + 1])["q"][0, -1]
    torch.testing.assert_close(chosen["q"][0, T], alone)


def test_conservatism_of_both_functions() -> None:
    """Bug: of twins the first alone is conservative: then the second is the greater, and never the one that is read."""
    raw = {name: (Q * factor).clone().requires_grad_() for name, factor in (("q", 1.0), ("q2", 2.0))}
    result = Conservative(HEADS["squared"](), weight=1.0, temperature=1.0)(raw, None, one_decision(1))
    assert float(result.loss_BT.detach()) == pytest.approx(6.0550 - 3 + 12.0025 - 6, abs=1e-3)
    result.loss_BT.sum().backward()
    for value in raw.values():
        assert value.grad is not None and value.grad.flatten().tolist() == pytest.approx(
            (value.detach().flatten().softmax(0) - torch.tensor([0.0, 1.0, 0.0])).tolist(), abs=1e-4
        )


def test_entropy_is_the_agents_own() -> None:
    """Bug: log pi of a partner's actions in the path, as if the agent had chosen them.

    Q 1 3 6 everywhere, V = 6.0550, T 1, undiscounted: decision (action 1, reward 4), partner (reward 2), decision (action 2,
    reward 5), end. residual_0 = 4 - (3 - V) + 2 + 5 - (6 - V) - V = 2 + V, and residual_2 = 5 - (6 - V) - V = -1.
    """
    objective = PathConsistency(HEADS["squared"](), False, weight=1.0, temperature=1.0, n=None, reference="none")
    batch = make_batch([[1, 0, 2]], [[4.0, 2.0, 5.0]], [[1.0, 1.0, 0.0]], [[1.0, 0.0, 1.0]])
    error_BT = objective({"q": torch.cat([Q] * 3, 1)}, None, decisions(batch, multi_turn=True)).error_BT
    assert error_BT is not None and error_BT[0, [0, 2]].tolist() == pytest.approx([2 + 6.0550, -1.0], abs=1e-3)


def test_an_answer_begins_where_its_prompt_ends() -> None:
    """Bug: the value of time 0 for rows whose first decision is later. Q 1 3 6 (V = 6.0550) at time 1, ten times that before.

    Row 0 decides at 0 and 1, row 1 at 1 alone (action 2, reward 5): residual_1 = 5 - (6 - V) - V = -1.
    """
    objective = Trajectory(HEADS["squared"](), weight=1.0, temperature=1.0, reference="none", baseline="value")
    batch = make_batch([[1, 2], [1, 2]], [[0.0, 5.0], [0.0, 5.0]], 1.0, [[1.0, 1.0], [0.0, 1.0]])
    online = {"q": torch.cat([Q * 10, Q], 1).expand(2, -1, -1, -1)}
    loss_B = objective(online, None, decisions(batch)).loss_BT
    assert float(loss_B[1]) == pytest.approx(0.5, abs=1e-3)
    assert float(loss_B[0]) == pytest.approx(0.5 * (5 - (30 - 60) - (6 - 6.0550) - 60) ** 2, rel=1e-3)
