"""Pure functions on tensors, against numbers worked out by hand and against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.evaluation import diversity, temperature
from dqnlm.evaluation.positions import CachedLogits
from dqnlm.objectives import bootstrap as rules
from dqnlm.objectives.bootstrap import StateValues
from dqnlm.ops import bootstrap, losses, returns
from dqnlm.ops.masking import after_burn_in
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, discount_from_flags


def test_one_step_target_by_hand() -> None:
    """Guards a value taken one step too early or too late, and a terminal that bootstraps.

    values 10 20 40 80, rewards 1 2 3, discounts 1/2 1/4 0: y = 1 + 20/2, 2 + 40/4, 3 + 0.
    """
    found = returns.one_step_target(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.25, 0.0]]), torch.tensor([[10.0, 20.0, 40.0, 80.0]])
    )
    assert found.tolist() == [[11.0, 12.0, 3.0]]


def test_carried_value_by_hand() -> None:
    """Guards an earlier decision that bootstraps from a state in which a partner speaks.

    Decisions at 0 and 3 (of 4 steps), values 5 6 7 8 9. From the end: v3 = 8 (a decision keeps its own),
    v2 = r2 + d2 v3 = 1 + 1 * 8 = 9, v1 = r1 + d1 v2 = 0 + 1 * 9 = 9, v0 = 5, v4 = 9 stands as it is.
    So the decision at 0, of reward 2 and gamma 1/2, aims at 2 + 9 / 2 = 6.5.
    In the second row the partner's step at 1 ends the episode: v1 = 3 + 0 * v2 = 3; what follows is padding, untouched.
    """
    value_BS = torch.tensor([[5.0, 6.0, 7.0, 8.0, 9.0]]).repeat(2, 1)
    reward_BT = torch.tensor([[2.0, 0.0, 1.0, 4.0], [2.0, 3.0, 0.0, 0.0]])
    discount_BT = torch.tensor([[0.5, 1.0, 1.0, 0.5], [0.5, 0.0, 0.0, 0.0]])
    carry_BT = torch.tensor([[False, True, True, False], [False, True, False, False]])
    carried_BS = returns.carried_value(value_BS, reward_BT, discount_BT, carry_BT)
    assert carried_BS.tolist() == [[5.0, 9.0, 9.0, 8.0, 9.0], [5.0, 3.0, 7.0, 8.0, 9.0]]
    assert returns.one_step_target(reward_BT, discount_BT, carried_BS)[:, 0].tolist() == [6.5, 3.5]
    everywhere = returns.carried_value(value_BS, reward_BT, discount_BT, torch.zeros(2, 4, dtype=torch.bool))
    assert torch.equal(everywhere, value_BS)


def test_bootstrap_by_hand() -> None:
    """Guards Double with the roles of the networks exchanged. Online prefers action 2, the target values it at 5."""
    online, target = torch.tensor([[[1.0, 0.0, 2.0]]]), torch.tensor([[[9.0, 7.0, 5.0]]])
    assert bootstrap.max_value(target, None).item() == 9.0
    assert bootstrap.double_value(online, target, None).item() == 5.0
    not_the_last = torch.tensor([True, True, False])
    assert bootstrap.double_value(online, target, not_the_last).item() == 9.0
    assert bootstrap.max_value(target, ~torch.tensor([True, False, False])).item() == 7.0
    assert bootstrap.max_action(target, None).item() == 0 and bootstrap.double_action(online, None).item() == 2
    assert bootstrap.double_action(online, not_the_last).item() == 0


@pytest.mark.fault("masked actions left in the bootstrap")
@pytest.mark.parametrize("shape", [(7,), (3, 1, 7), (3, 5, 7)])
def test_illegal_actions_never_enter_the_bootstrap(shape: tuple[int, ...]) -> None:
    """Guards masked actions left in the maximum: the best ones are made illegal, their values must not show."""
    generator = torch.Generator().manual_seed(0)
    online, target = (torch.randn(3, 5, 7, generator=generator) for _ in range(2))
    legal = torch.rand(shape, generator=generator) < 0.5
    legal[..., 2] = True
    poisoned = [q.masked_fill(~legal, 1e6) for q in (online, target)]
    for clean, value in (
        (bootstrap.max_value(target, legal), bootstrap.max_value(poisoned[1], legal)),
        (bootstrap.double_value(online, target, legal), bootstrap.double_value(poisoned[0], poisoned[1], legal)),
    ):
        assert torch.equal(clean, value) and float(value.max()) < 1e5
    loop = [[max(float(q) for q, ok in zip(row, legal.expand(3, 5, 7)[b, t], strict=True) if ok)
             for t, row in enumerate(rows)] for b, rows in enumerate(target)]  # fmt: skip
    torch.testing.assert_close(bootstrap.max_value(target, legal), torch.tensor(loop))
    assert torch.equal(bootstrap.double_value(target, target, legal), bootstrap.max_value(target, legal))


def test_soft_values_by_hand() -> None:
    """Bug: a temperature that divides where it should multiply, or a sign lost in the Munchausen bonus.

    T = 1/2, Q = (log 3) / 2 and 0: Q / T = log 3 and 0, so v = log(3 + 1) / 2 and pi = 3/4, 1/4. The bonus of alpha 1/2 is
    log(3/4) / 4 and log(1/4) / 4; clipped at T log pi >= -1/2 (log(1/4) / 2 = -.69) the second is -1/4.
    """
    q_BSA = torch.tensor([[[math.log(3) / 2, 0.0], [math.log(3) / 2, 0.0]]])
    torch.testing.assert_close(bootstrap.soft_value(q_BSA, None, 0.5), torch.full((1, 2), math.log(4) / 2))
    log_pi_BSA = bootstrap.soft_policy_log(q_BSA, None, 0.5)
    torch.testing.assert_close(log_pi_BSA.exp(), torch.tensor([[[0.75, 0.25], [0.75, 0.25]]]))
    action_BT = torch.tensor([[0, 1]])
    bonus_BT = bootstrap.munchausen_bonus(q_BSA, action_BT, None, 0.5, 0.5, -10.0)
    torch.testing.assert_close(bonus_BT, torch.tensor([[math.log(0.75) / 4, math.log(0.25) / 4]]))
    clipped_BT = bootstrap.munchausen_bonus(q_BSA, action_BT, None, 0.5, 0.5, -0.5)
    torch.testing.assert_close(clipped_BT, torch.tensor([[math.log(0.75) / 4, -0.25]]))


def test_soft_values_with_illegal_actions_and_their_limits() -> None:
    """Bug: 0 times minus infinity at illegal actions, or mass on them; a soft value that does not tend to the maximum.

    Oracle: sum_a pi (Q - T log pi) over the legal actions by a loop. Bounds: max <= v <= max + T log A.
    """
    generator = torch.Generator().manual_seed(1)
    q_BSA = torch.randn(3, 5, 7, generator=generator)
    legal = torch.rand(3, 5, 7, generator=generator) < 0.5
    legal[..., 2] = True
    poisoned_BSA = q_BSA.masked_fill(~legal, 1e6)
    loop = torch.zeros(3, 5)
    for b in range(3):
        for t in range(5):
            q_A = q_BSA[b, t][legal[b, t]]
            pi_A = (q_A / 0.3).softmax(0)
            loop[b, t] = (pi_A * (q_A - 0.3 * pi_A.log())).sum()
    torch.testing.assert_close(bootstrap.munchausen_value(poisoned_BSA, legal, 0.3), loop)
    torch.testing.assert_close(bootstrap.soft_value(poisoned_BSA, legal, 0.3), loop)
    log_pi_BSA = bootstrap.soft_policy_log(poisoned_BSA, legal, 0.3)
    assert log_pi_BSA[~legal].isinf().all()
    torch.testing.assert_close(log_pi_BSA.exp().sum(-1), torch.ones(3, 5))
    best_BS = bootstrap.max_value(q_BSA, legal)
    near_BS = bootstrap.munchausen_value(q_BSA, legal, 1e-4)
    assert ((near_BS >= best_BS - 1e-6) & (near_BS <= best_BS + 1e-4 * math.log(7) + 1e-6)).all()
    illegal_BT = (~legal).long().argmax(-1)
    bonus_BT = bootstrap.munchausen_bonus(q_BSA, illegal_BT, legal, 0.9, 0.3, -1.0)
    torch.testing.assert_close(bonus_BT[~legal.all(-1)], torch.tensor(-0.9).expand(int((~legal.all(-1)).sum())))
    assert (bootstrap.munchausen_bonus(q_BSA, illegal_BT, legal, 0.0, 0.3, -1.0) == 0).all()


def both(online: Tensor, target: Tensor, v_BS: Tensor | None = None) -> tuple[StateValues, StateValues]:
    return StateValues(online, None), StateValues(target, v_BS)


def test_each_bootstrap_reads_the_right_network() -> None:
    """Bug: a class wired to the online network's values, or an action whose Qbar is not the value it stands for."""
    generator = torch.Generator().manual_seed(2)
    online, target = (torch.randn(3, 5, 7, generator=generator) for _ in range(2))
    v_BS = torch.randn(3, 5, generator=generator)
    legal = torch.tensor([True] * 6 + [False])
    pair = both(online, target, v_BS)
    for part in (rules.Max(), rules.Double()):
        assert part.names_action and not part.adds_entropy
        assert part.bonus(target, torch.zeros(3, 5).long(), legal) is None
        taken_BS = target.gather(-1, part.action(*pair, legal)[..., None]).squeeze(-1)
        assert torch.equal(part.value(*pair, legal), taken_BS)
    assert torch.equal(rules.Max().value(*pair, legal), target[..., :6].amax(-1))
    chosen = online[..., :6].argmax(-1)
    assert torch.equal(rules.Double().action(*pair, legal), chosen)
    expected = 0.5 * (target[..., :6] / 0.5).logsumexp(-1)
    munchausen = rules.Munchausen(alpha=0.9, temperature=0.5, clip_low=-1.0)
    for soft in (rules.Soft(temperature=0.5), munchausen):
        torch.testing.assert_close(soft.value(*pair, legal), expected)
        assert (
            soft.value(*pair, legal) > target[..., :6].amax(-1)
        ).all() and soft.adds_entropy  # so it may leave the bounds
        assert not soft.names_action
    with pytest.raises(NotImplementedError, match="Soft"):
        rules.Soft(temperature=0.5).action(*pair, legal)
    bonus = munchausen.bonus(target, chosen, legal)
    log_pi = (target[..., :6] / 0.5).log_softmax(-1).gather(-1, chosen[..., None]).squeeze(-1)
    torch.testing.assert_close(bonus, 0.9 * (0.5 * log_pi).clamp(-1, 0))
    assert munchausen.adds_bonus and not rules.Soft(temperature=0.5).adds_bonus
    assert torch.equal(rules.Value().value(*pair, legal), v_BS) and rules.Value().needs_outputs == ("v",)


def test_bootstraps_refuse_settings_out_of_range() -> None:
    """Bug: a temperature of 0 that divides by zero in the first update, or a clip above 0 that clamps to nonsense."""
    for temperature_value in (0.0, -1.0, math.inf):
        with pytest.raises(UserError, match=r"bootstrap\.temperature"):
            rules.Soft(temperature=temperature_value)
        with pytest.raises(UserError, match=r"bootstrap\.temperature"):
            rules.Munchausen(alpha=0.9, temperature=temperature_value, clip_low=-1.0)
    for alpha in (-0.1, 1.1):
        with pytest.raises(UserError, match=r"bootstrap\.alpha"):
            rules.Munchausen(alpha=alpha, temperature=0.03, clip_low=-1.0)
    for clip_low in (0.0, 1.0, -math.inf):
        with pytest.raises(UserError, match=r"bootstrap\.clip_low"):
            rules.Munchausen(alpha=0.9, temperature=0.03, clip_low=clip_low)


def test_discount_from_flags_in_every_case() -> None:
    """Guards truncation treated as termination, and prompt steps that shorten the horizon. Gamma 0.9, by hand."""
    cases = {
        DECISION: 0.9,
        DECISION | TRUNCATED: 0.9,  # the row is cut, life goes on
        DECISION | TERMINATED: 0.0,
        0: 1.0,  # not the agent's step
        TRUNCATED: 1.0,
        TERMINATED: 0.0,
    }
    flags = torch.tensor([list(cases)], dtype=torch.uint8)
    found = discount_from_flags(flags, torch.tensor([len(cases)]), 0.9)
    torch.testing.assert_close(found, torch.tensor([list(cases.values())]))
    assert discount_from_flags(flags, torch.tensor([1]), 0.9)[0, 1:].eq(0).all()  # padding, whatever its flags
    assert discount_from_flags(flags[:, :1], torch.tensor([1]), 0.0).item() == 0.0
    assert discount_from_flags(torch.zeros(1, 2, dtype=torch.uint8), torch.tensor([2]), 0.0).tolist() == [[1.0, 1.0]]


def test_masked_mean() -> None:
    """Guards a division by the padded length, and 0 / 0 where a batch holds no decision."""
    value = torch.tensor([[1.0, 2.0, 100.0]])
    assert losses.masked_mean(value, torch.tensor([[1.0, 1.0, 0.0]])).item() == 1.5
    assert losses.masked_mean(value, torch.zeros(1, 3)).item() == 0.0


@pytest.mark.parametrize(("burn_in", "left"), [(0, [0, 1, 1, 0, 1]), (1, [0, 0, 1, 0, 1]), (2, [0, 0, 0, 0, 1]), (3, [0] * 5)])
def test_burn_in_counts_decisions(burn_in: int, left: list[float]) -> None:
    """Guards steps of a prompt or a partner that count as decisions, and a boundary that is one off."""
    assert after_burn_in(torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]]), burn_in).tolist() == [left]


def test_losses_by_hand() -> None:
    """Guards a missing half, a Huber delta other than 1, a label read as a class, an expectile upside down.

    log(1 + e^0) = log 2."""
    one, target = torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.0])
    assert losses.squared(one, target).tolist() == [0.125, 4.5]
    assert losses.huber(one, target).tolist() == [0.125, 2.5]
    torch.testing.assert_close(losses.logistic(torch.zeros(2), torch.tensor([0.0, 0.7])), torch.full((2,), math.log(2)))
    expectile = losses.expectile(torch.tensor([2.0, -2.0, 0.0]), 0.9)  # .9 * 4 / 2, (1 - .9) * 4 / 2, 0
    torch.testing.assert_close(expectile, torch.tensor([1.8, 0.2, 0.0]))
    logit = torch.tensor([0.3], requires_grad=True)
    losses.logistic(logit, torch.tensor([0.2])).sum().backward()
    assert logit.grad is not None
    torch.testing.assert_close(logit.grad, torch.tensor([0.3]).sigmoid() - 0.2)


def scores(scale: float, n: int = 400, actions: int = 6) -> tuple[Tensor, Tensor]:
    """Q whose softmax(2 Q / scale) the targets are drawn from."""
    generator = torch.Generator().manual_seed(3)
    q_NA = scale * torch.randn(n, actions, generator=generator)
    return q_NA, torch.multinomial((2 * q_NA / scale).softmax(-1), 1, generator=generator)[:, 0]


def grid_minimum(q_NA: Tensor, target_N: Tensor) -> float:
    return min(temperature.nats(CachedLogits(q_NA, target_N), 10 ** (k / 8)) for k in range(-24, 33))


@pytest.mark.parametrize("scale", [0.001, 0.1, 1.0, 30.0])
def test_temperature_fit_against_a_grid(scale: float) -> None:
    """Guards a search that stops short, or that depends on the units of Q."""
    q_NA, target_N = scores(scale)
    inverse = temperature.fit_inverse_temperature(q_NA, target_N)
    reached = temperature.nats(CachedLogits(q_NA, target_N), inverse)
    assert reached <= grid_minimum(q_NA, target_N)
    assert all(reached < temperature.nats(CachedLogits(q_NA, target_N), inverse * f) for f in (0.97, 1.03))
    for start in (1e-3, 1e4):
        assert temperature.fit_inverse_temperature(q_NA, target_N, start) == pytest.approx(inverse, rel=0.02)


@pytest.mark.parametrize("actions", [30, 65, 1000, 20000])
@pytest.mark.parametrize("right", [0.2, 0.5, 0.95])
def test_temperature_fit_where_q_is_nearly_one_hot(actions: int, right: float) -> None:
    """Guards Newton's method jumping to and fro over the minimum: the slope is a steep sigmoid of b.

    Q is 1 for one action and 0 for the rest, right in a share of the places; then the probability of the best action,
    e^b / (e^b + A - 1), must be that share: b = log((A - 1) share / (1 - share)).
    """
    q_NA = torch.zeros(100, actions)
    q_NA[:, 0] = 1.0
    target_N = (torch.arange(100) >= right * 100).long()
    best = math.log((actions - 1) * right / (1 - right))
    for start in (None, best / 2, best * 1.9):
        assert temperature.fit_inverse_temperature(q_NA, target_N, start) == pytest.approx(best, rel=5e-3)


def test_temperature_fit_with_illegal_actions_and_many_positions() -> None:
    """Guards -inf turning into NaN, and the fit to a sample of the text that does not go on to the whole of it."""
    q_NA, target_N = scores(0.2, n=9000)
    with_illegal = torch.cat([q_NA, torch.full((9000, 1), -math.inf)], 1)
    inverse = temperature.fit_inverse_temperature(with_illegal, target_N)
    assert inverse == pytest.approx(temperature.fit_inverse_temperature(q_NA, target_N), rel=1e-3)
    assert temperature.nats(CachedLogits(with_illegal, target_N), inverse) <= grid_minimum(q_NA, target_N)


def test_cross_fitting_scores_each_half_with_the_others_temperature() -> None:
    """Guards a temperature fitted to the very text that it scores: the halves need 0.5 and 2, and each gets the other's."""
    (hot, hot_target), (cold, cold_target) = scores(1.0), scores(4.0)
    found = temperature.cross_fitted_nats(CachedLogits(torch.cat([hot, cold]), torch.cat([hot_target, cold_target])))
    b_hot, b_cold = (temperature.fit_inverse_temperature(*half) for half in ((hot, hot_target), (cold, cold_target)))
    assert b_hot / b_cold == pytest.approx(4, rel=1e-3)
    expected = (
        temperature.nats(CachedLogits(hot, hot_target), b_cold)
        + temperature.nats(CachedLogits(cold, cold_target), b_hot)
    ) / 2
    assert found == pytest.approx(expected, rel=1e-5)
    own = (
        temperature.nats(CachedLogits(hot, hot_target), b_hot)
        + temperature.nats(CachedLogits(cold, cold_target), b_cold)
    ) / 2
    assert found > own + 0.1
    with pytest.raises(ValueError, match="two positions"):
        temperature.cross_fitted_nats(CachedLogits(hot[:1], hot_target[:1]))


def test_every_position_weighs_the_same_in_a_cross_fit() -> None:
    """Guards a mean of two means: of five positions the first two are one half, the other three the other."""
    q_NA, target_N = scores(2.0)[0][:5], scores(2.0)[1][:5]
    halves = [CachedLogits(q_NA[:2], target_N[:2]), CachedLogits(q_NA[2:], target_N[2:])]
    first, second = (temperature.nats(halves[i], temperature.fit(halves[1 - i])) for i in (0, 1))
    assert temperature.cross_fitted_nats(CachedLogits(q_NA, target_N)) == pytest.approx((2 * first + 3 * second) / 5, rel=1e-6)
    assert abs(first - second) > 1e-3


def test_distinct_and_top_share_by_hand() -> None:
    """Guards n-grams that run over the border of two texts. Pairs: 11 12 | 12 21, so 3 of 4 differ; 1 is 4 of 6 tokens."""
    texts = [[1, 1, 2], [1, 2, 1]]
    assert diversity.distinct_share(texts, 2) == 3 / 4
    assert diversity.distinct_share(texts, 1) == 2 / 6
    assert diversity.distinct_share(texts, 4) == 0.0
    assert diversity.distinct_share([], 1) == 0.0
    assert diversity.top_token_share(texts) == pytest.approx(4 / 6)
    assert diversity.top_token_share([[]]) == 0.0
