"""Rewards against slow oracles, their masks, their rows and their bounds."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from dqnlm.errors import UserError
from dqnlm.rewards.base import discounted_length
from dqnlm.rewards.exact_match import ExactMatch
from tests.helpers.paths import CONFIGS
from tests.helpers.rewards import EDIT, EXACT, MIXTURE, NGRAM, A, build, oracle, random_ids, similarity

ALL = pytest.mark.parametrize("config", [EXACT, EDIT, NGRAM, MIXTURE], ids=["exact", "edit", "ngram_f1", "mixture"])
SIMILARITIES = pytest.mark.parametrize("config", [EDIT, NGRAM], ids=["edit", "ngram_f1"])


@SIMILARITIES
@pytest.mark.parametrize("H", [3, 4, 7, 12])
def test_similarity_against_oracle_at_every_prefix(config: dict[str, Any], H: int) -> None:
    """Guards the running minimum, the suffix recursion and the clipping: any of them wrong shows at some prefix."""
    reference, action = random_ids(60, H, seed=H), random_ids(60, H, seed=H + 100)
    reward = build(config)
    reward.reset(reference)
    total = torch.zeros(60)
    for t in range(H):
        total += reward.step(action[:, t])
        pairs = zip(action[:, : t + 1].tolist(), reference.tolist(), strict=True)
        expected = torch.tensor([similarity(config, said, ref) for said, ref in pairs])
        torch.testing.assert_close(total, expected, atol=2e-6, rtol=0)


def test_similarity_hand_computed() -> None:
    """Guards the oracles themselves. Reference 0 1 2 0, said 1 2 0 0.

    Edit: D after 0..4 tokens is 4, 3, 2, 1, 2 (0 1 2 0 needs one insertion in front, then one deletion more).
    Bigrams of the reference: 01 12 20; said 12 20 00. Order 1: overlap 1 2 3 4, F1 2/5 4/6 6/7 1.
    Order 2: overlap 0 1 2 2 of 0 1 2 3 said and 3 in the reference: 0 2/4 4/5 4/6.
    """
    reference, action = torch.tensor([[0, 1, 2, 0]]), torch.tensor([[1, 2, 0, 0]])
    edit = build(EDIT).row(action, reference)
    torch.testing.assert_close(edit, torch.tensor([[0.25, 0.25, 0.25, -0.25]]))
    grams = build({**NGRAM, "max_n": 2}).row(action, reference).cumsum(1)
    expected = torch.tensor([[(2 / 5 + 0) / 2, (4 / 6 + 2 / 4) / 2, (6 / 7 + 4 / 5) / 2, (1 + 4 / 6) / 2]])
    torch.testing.assert_close(grams, expected)


def test_exact_match_hand_computed() -> None:
    """Guards an off-by-one between the decision and its reference token."""
    reward = ExactMatch(9, match=1.0, mismatch=-0.5)
    reward.reset(torch.tensor([[7, 8], [5, 5]]))
    assert reward.step(torch.tensor([7, 8])).tolist() == [1.0, -0.5]
    assert reward.step(torch.tensor([7, 5])).tolist() == [-0.5, 1.0]
    pairs = ((1, 0), (1.0, 0.0), (1, -0.5), (2, 0), (0, 1))  # its mean is a probability of being right for the first two alone
    assert [ExactMatch(9, match=yes, mismatch=no).is_match_indicator for yes, no in pairs] == [True, True, False, False, False]


@ALL
def test_perfect_text(config: dict[str, Any]) -> None:
    """Saying the reference ends at similarity 1, or gets every match."""
    reference = random_ids(20, 6, seed=1)
    total = build(config).row(reference, reference).sum(1)
    perfect = {"match": 6.0, "kind": 1.0, "parts": 2 * 6 - 0.5 + 1}
    torch.testing.assert_close(total, torch.full((20,), next(perfect[k] for k in perfect if k in config)))


@ALL
def test_row_equals_steps_and_leaves_the_running_state_alone(config: dict[str, Any]) -> None:
    """Guards a row that shares its state with the episode in progress, and a fast path that is not the slow one."""
    reference, action = random_ids(9, 5, seed=2), random_ids(9, 5, seed=3)
    reward = build(config)
    reward.reset(reference)
    stepped = []
    for t in range(5):
        stepped.append(reward.step(action[:, t]))
        reward.row(random_ids(4, 6, seed=t), random_ids(4, 6, seed=t + 50))
    assert torch.equal(torch.stack(stepped, 1), reward.row(action, reference))
    assert stepped[0].dtype == torch.float32


@ALL
def test_masks_against_one_oracle_per_environment(config: dict[str, Any]) -> None:
    """Guards state that moves on while inactive, or that a neighbour's reset touches."""
    E, H, rng, reward = 7, 4, random.Random(4), build(config)
    references = random_ids(E, H, seed=5).tolist()
    reward.reset(torch.tensor(references), torch.ones(E, dtype=torch.bool))
    said: list[list[int]] = [[] for _ in range(E)]
    for _ in range(60):
        action = [rng.randrange(A) for _ in range(E)]
        active = [len(text) < H and rng.random() < 0.7 for text in said]
        expected = [0.0] * E
        for e in range(E):
            if active[e]:
                said[e].append(action[e])
                expected[e] = oracle(config, said[e], references[e])
        found = reward.step(torch.tensor(action), torch.tensor(active))
        torch.testing.assert_close(found, torch.tensor(expected), atol=2e-6, rtol=0)
        again = [rng.random() < 0.2 for _ in range(E)]
        fresh = [[rng.randrange(A) for _ in range(H)] for _ in range(E)]
        reward.reset(torch.tensor(fresh), torch.tensor(again))
        said = [[] if again[e] else said[e] for e in range(E)]
        references = [fresh[e] if again[e] else references[e] for e in range(E)]


@ALL
def test_state_dict_round_trip(config: dict[str, Any], tmp_path: Path) -> None:
    """Guards a state that is saved by reference and moves on, or one that lacks a part."""
    reference, action = random_ids(6, 5, seed=6), random_ids(6, 5, seed=7)
    reward = build(config)
    reward.reset(reference)
    reward.step(action[:, 0])
    torch.save(reward.state_dict(), tmp_path / "state")
    kept = reward.state_dict()
    expected = [reward.step(action[:, t]) for t in range(1, 5)]
    for state in (torch.load(tmp_path / "state", weights_only=True), kept):
        other = build(config)
        other.load_state_dict(state)
        assert all(torch.equal(other.step(action[:, t]), expected[t - 1]) for t in range(1, 5))


@ALL
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("H", [3, 4])
def test_return_bounds_hold_for_every_text(config: dict[str, Any], gamma: float, H: int) -> None:
    """All 3^H texts against all 3^H references, from every time to every later time: no return leaves the bounds."""
    texts = torch.tensor(list(itertools.product(range(A), repeat=H)))
    action, reference = texts.repeat(len(texts), 1), texts.repeat_interleave(len(texts), 0)
    reward = build(config)
    reward_BH = reward.row(action, reference)
    low, high = reward.return_bounds(gamma, H)
    step_low, step_high = reward.return_bounds(0.0, H)
    assert reward.bounds.low <= step_low + 1e-6
    assert step_high <= reward.bounds.high + 1e-6
    for first, last in itertools.combinations(range(H + 1), 2):
        discount = gamma ** torch.arange(last - first)
        value = (reward_BH[:, first:last] * discount).sum(1)
        assert low - 1e-6 <= float(value.min())
        assert float(value.max()) <= high + 1e-6


@pytest.mark.parametrize("H", [1, 2, 5, 6])
def test_edit_bounds_are_tight(H: int) -> None:
    """The least return: the second half of the reference, then nonsense; the greatest: the reference."""
    reference = torch.arange(H)[None]
    reward = build(EDIT, 100)
    half = H // 2
    action = torch.cat([reference[:, H - half :], torch.full((1, H - half), 99)], 1)
    low, high = reward.return_bounds(1.0, H)
    assert float(reward.row(action, reference)[0, half : 2 * half].sum()) == pytest.approx(low, abs=1e-6)
    assert high == 1.0
    assert float(reward.row(reference, reference)[0] @ 0.9 ** torch.arange(H)) == pytest.approx(
        reward.return_bounds(0.9, H).high
    )


def test_exact_match_bounds_by_hand() -> None:
    """H = 3, gamma 0.5: 1 + 1/2 + 1/4 = 1.75; cut but valued onwards: 2; at gamma 1 endless: infinite.

    A reward that is never below 1 returns at least 1, that of one last decision, not 1.75.
    """
    reward = ExactMatch(A, match=1.0, mismatch=0.0)
    assert reward.return_bounds(0.5, 3) == (0.0, 1.75)
    assert reward.return_bounds(0.5, 3, endless=True) == (0.0, 2.0)
    assert reward.return_bounds(1.0, 3, endless=True) == (0.0, float("inf"))
    assert ExactMatch(A, match=2.0, mismatch=1.0).return_bounds(0.5, 3) == (1.0, 3.5)
    assert ExactMatch(A, match=-1.0, mismatch=-2.0).return_bounds(0.5, 3) == (-3.5, -1.0)
    assert [discounted_length(g, 4) for g in (0.0, 0.5, 1.0)] == [1.0, 1.875, 4]


def test_mixture_bounds_by_hand() -> None:
    """A negative weight turns an interval round; a weight of 0 leaves an infinite one out (0 inf is no number)."""
    parts = {"a": {**EXACT, "weight": -2.0}, "b": {**EXACT, "match": 3.0, "weight": 1.0}}
    assert build({**MIXTURE, "parts": parts}).bounds == (-2.25, 3.5)
    parts = {"a": {**EXACT, "weight": 0.0}, "b": {**EDIT, "weight": 1.0}}
    assert build({**MIXTURE, "parts": parts}).return_bounds(1.0, 4, endless=True) == (-1.0, 1.0)


def test_mixture_logs_its_parts() -> None:
    """Guards a log that shows weighted parts, or those of an earlier call; inner mixtures show their own parts too."""
    inner = {**MIXTURE, "weight": 0.5}
    mixture = build({**MIXTURE, "parts": {"inner": inner, "exact": {**EXACT, "weight": 0.0}}})
    reference, action = random_ids(4, 5, seed=8), random_ids(4, 5, seed=9)
    total = mixture.row(action, reference)
    parts = mixture.parts()
    assert set(parts) == {"inner", "exact", "inner/exact", "inner/edit", "inner/grams"}
    assert torch.equal(parts["exact"], build(EXACT).row(action, reference))
    assert torch.equal(parts["inner/edit"], build(EDIT).row(action, reference))
    torch.testing.assert_close(total, 0.5 * parts["inner"])
    mixture.reset(reference)
    mixture.step(action[:, 0])
    assert torch.equal(mixture.parts()["inner"], parts["inner"][:, 0])
    assert build(EXACT).parts() == {}


@pytest.mark.parametrize(
    "config",
    [EXACT, {**MIXTURE, "parts": {"a": {**EXACT, "weight": 3.0}, "b": {**EXACT, "match": 0.5, "weight": -1.0}}}],
    ids=["exact", "mixture"],
)
def test_all_actions_equals_trying_every_action(config: dict[str, Any]) -> None:
    """Guards the counterfactual rewards that the all_actions feedback learns from."""
    reward, reference = build(config), random_ids(5, 6, seed=10).to(torch.uint8)
    tried = torch.stack([reward.row(torch.full((5, 6), a), reference) for a in range(A)], -1)
    assert reward.knows_all_actions
    assert torch.equal(reward.all_actions(reference), tried)


@pytest.mark.parametrize("config", [EDIT, NGRAM, MIXTURE], ids=["edit", "ngram_f1", "mixture"])
def test_all_actions_refused_where_unknown(config: dict[str, Any]) -> None:
    reward = build(config)
    assert not reward.knows_all_actions
    with pytest.raises(NotImplementedError):
        reward.all_actions(random_ids(2, 3, seed=0))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**EXACT, "mismatch": 1.0}, "reward.match and reward.mismatch"),
        ({**EXACT, "match": float("nan")}, "reward.match"),
        ({**EDIT, "max_n": 2}, "reward.max_n=null"),
        ({**EDIT, "kind": "edits"}, "edit, ngram_f1"),
        ({**NGRAM, "max_n": None}, "reward.max_n=4"),
        ({**NGRAM, "max_n": 0}, "reward.max_n is 0"),
        ({**MIXTURE, "parts": {}}, "reward.parts"),
        ({**MIXTURE, "parts": {"a": {**EXACT, "weight": 0}}}, "other than 0"),
        ({**MIXTURE, "parts": {"a": EXACT}}, "reward.parts.a.weight is missing"),
        ({**MIXTURE, "parts": {"a": {**EXACT, "weight": float("inf")}}}, "reward.parts.a.weight is inf"),
    ],
)
def test_user_errors(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        build(config)


def test_ngrams_longer_than_the_reference_are_refused() -> None:
    """Guards a division by zero: such an order has no n-grams on either side."""
    reward = build({**NGRAM, "max_n": 4})
    for call in (lambda: reward.reset(random_ids(2, 3, seed=0)), lambda: reward.return_bounds(1.0, 3)):
        with pytest.raises(UserError, match="only 3 tokens"):
            call()


@pytest.mark.parametrize("name", ["exact_match", "similarity", "mixture"])
def test_shipped_configs_build(name: str) -> None:
    """Guards a YAML key that no parameter reads, and a parameter that no key sets."""
    config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "reward" / f"{name}.yaml"))
    assert (CONFIGS / "reward" / f"{name}.yaml").read_text().startswith(f"# {name}: ")
    assert build(config).row(random_ids(2, 4, seed=0), random_ids(2, 4, seed=1)).shape == (2, 4)
