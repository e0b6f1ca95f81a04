"""Figures of held-out rows and of greedy answers, against plain loops over single rows and numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.data.tokenizers.base import CharacterTokenizer
from dqnlm.data.tokenizers.ended import with_end
from dqnlm.data.trajectories.log import LogPart
from dqnlm.data.trajectories.records import Trajectory, dialogue
from dqnlm.data.trajectories.rows import token_rows
from dqnlm.errors import UserError
from dqnlm.evaluation.logged import LogEvaluator
from dqnlm.evaluation.logged_rows import best_rows, decisions, returns_that_came, row_sums, value_metrics
from dqnlm.evaluation.temperature import fit_inverse_temperature
from dqnlm.heads.scalar import Scalar
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear
from dqnlm.networks.transformer import Transformer
from dqnlm.rewards.base import Episodes, SequenceReward
from dqnlm.types import DECISION, Bounds
from tests.helpers.tasks import task_spec

TOKENIZER = with_end(CharacterTokenizer("abcd"), None)  # a b c d, unknown 4, end 5
ACTIONS = TOKENIZER.vocabulary_size
ITEMS = [
    Trajectory("ab", "cd", (0.0, 2.0)),
    Trajectory("ab", "dddd", (0.0, 0.0, 0.0, -1.0)),
    dialogue([("c", False, 0.0), ("ab", True, 1.0), ("dd", False, 0.0), ("a", True, 0.5)], -1, ""),
    Trajectory("ba", "z", (3.0,)),  # z is unknown
    Trajectory("abca", "b", (0.0,)),
]
ROWS = token_rows(ITEMS, TOKENIZER, TOKENIZER.eos_id, strict=False)


def make_policy(declared: Any, outputs: tuple[str, ...] = ("policy", "q2", "v"), context: int = 12) -> Policy:
    torch.manual_seed(0)
    body = Transformer(layers=1, heads=2, width=16, context=context, norm="rms", dropout=0.0, tie_weights=False)
    names = {name: Linear(16, 1 if name == "v" else ACTIONS, 1) for name in ("q", *outputs)}
    network = QNetwork(TokenEncoder(ACTIONS, 16, 1.0), body, dict(names)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    head = Scalar(Bounds(-math.inf, math.inf), False, loss="squared", initial_return=0.0)
    legal_A = torch.ones(ACTIONS, dtype=torch.bool)
    legal_A[4] = False
    return Policy(network, head, TOKENIZER, legal_A, declared, 1.0, beta=2.0, spec=task_spec(ACTIONS), outputs=outputs)


def slowly(policy: Policy, row: Any) -> list[tuple[dict[str, Tensor], int]]:
    """Outputs and the logged token at each decision that can be scored, one prefix at a time."""
    found = []
    for time, flag in enumerate(row.flag_T):
        taken = int(row.ids[time + 1])
        if flag & DECISION and taken != 4:
            output = policy.network(torch.from_numpy(row.ids[: time + 1]).long()[None])
            found.append(({name: raw[0, -1] for name, raw in output.items()}, taken))
    return found


@torch.no_grad()
def test_rows_are_scored_like_prefixes() -> None:
    """Bug: decisions off by one, padding or a partner's tokens counted, another row's sums, or beta left changed."""
    policy, betas = make_policy("reweighted"), [0.0, 5.0]
    sums = row_sums(policy, ROWS, betas)
    assert policy.beta == 2.0 and sums.count_B.tolist() == [3, 5, 5, 1, 2]
    for b, row in enumerate(ROWS):
        nats, q, hits = np.zeros(3), 0.0, 0
        for output, taken in slowly(policy, row):
            least_A = torch.minimum(output["q"], output["q2"]).squeeze(-1)
            q += float(least_A[taken])
            for column, beta in enumerate((2.0, *betas)):
                logit_A = output["policy"].squeeze(-1).log_softmax(-1) + beta * least_A
                logit_A[4] = -math.inf
                nats[column] -= float(logit_A.log_softmax(-1)[taken])
                hits += int(column == 0 and int(logit_A.argmax()) == taken)
        assert sums.nats_BP[b].tolist() == pytest.approx(nats.tolist(), abs=1e-4)
        assert float(sums.q_B[b]) == pytest.approx(q, abs=1e-4) and int(sums.hits_B[b]) == hits


@torch.no_grad()
def test_temperatures_are_fitted_to_the_other_half() -> None:
    """Bug: a row scored with a temperature that it has chosen itself. Oracle: a search over many temperatures."""
    policy = make_policy("boltzmann", ())
    sums = row_sums(policy, ROWS, [])
    halves: list[list[tuple[Tensor, int]]] = [[], []]
    for b, row in enumerate(ROWS):
        halves[b % 2] += [(policy.q({"q": output["q"]}), taken) for output, taken in slowly(policy, row)]

    def nats(pairs: list[tuple[Tensor, int]], inverse: float) -> float:
        return -sum(float((q_A * inverse).log_softmax(-1)[taken]) for q_A, taken in pairs)

    grid = [1e-3 * 1.02**k for k in range(815)]  # to 1e4
    for half in (0, 1):
        best = min(grid, key=lambda inverse, other=1 - half: nats(halves[other], inverse))  # type: ignore[misc]
        assert float(sums.nats_BP[half::2].sum()) == pytest.approx(nats(halves[half], best), rel=0.02)
    whole = min(grid, key=lambda inverse: nats([*halves[0], *halves[1]], inverse))
    assert 1 / policy.temperature == pytest.approx(whole, rel=0.03)


@torch.no_grad()
def test_blocks_hold_each_decision_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: rows or decisions lost where a forward is full."""
    policy = make_policy("reweighted")
    whole = row_sums(policy, ROWS, [])
    monkeypatch.setattr("dqnlm.evaluation.logged_rows._OBSERVATIONS", 12)
    monkeypatch.setattr("dqnlm.evaluation.logged_rows._NUMBERS", ACTIONS * 4 * 2)
    assert len(list(decisions(policy, ROWS))) > 8
    for one, other in zip(row_sums(policy, ROWS, []), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_nothing_to_score() -> None:
    """Bug: a division by zero."""
    rows = token_rows([Trajectory("a", "z", (1.0,))], TOKENIZER.text, None, strict=False)
    with pytest.raises(UserError, match="no held-out row"), torch.no_grad():
        row_sums(make_policy("reweighted"), rows, [])


def test_returns_that_came_by_hand() -> None:
    """Bug: a partner's token is discounted, or an episode's next row is another's.

    Discount .5. `cd` for 2 and the end: 2 at the end, 1, .5: mean 3.5 / 3. The dialogue (see `test_logs`): decisions a b end |
    a end with 1 at the first end and .5 at the last: from the back .5, .25, then 1 + .5 * .25 = 1.125 (its step to d is
    discounted, those of d are not), .5625, .28125. The cut episode 7: `b`, the end, then `aa`; its next row is worth
    4 * .5 = 2 at its beginning.
    """
    cut = [
        Trajectory("a", "b", (1.0,), "aa", 7),
        Trajectory("a", "b", (1.0,), "aa", 8),
        Trajectory("aa", "c", (4.0,), "", 7),
    ]
    items = [ITEMS[0], ITEMS[2], *cut]
    came_B = returns_that_came(items, token_rows(items, TOKENIZER, TOKENIZER.eos_id), 0.5)
    talk = [0.5, 0.25, 1.125, 0.5625, 0.28125]
    first = [1 + 0.5 * 2, 0.5 * (1 + 0.5 * 2)]
    assert came_B[[0, 1, 2, 4]].tolist() == pytest.approx([3.5 / 3, sum(talk) / 5, sum(first) / 2, 3.0])
    assert came_B[3].isnan(), "nobody knows how episode 8 goes on"


def test_value_figures_by_hand() -> None:
    """Bug: another correlation, a baseline of zero, or pairs of different prompts. Oracle: numpy, and counting."""
    q, came = [0.5, 1.0, 3.0, 2.0, 9.0], [1.0, 0.0, 2.0, 2.0, math.nan]
    figures = value_metrics(torch.tensor(q).double(), torch.tensor(came).double(), ["a", "a", "a", "b", "b"])
    known = np.array(q[:4]), np.array(came[:4])
    assert figures["eval/return_correlation"] == pytest.approx(np.corrcoef(*known)[0, 1])
    explained = 1 - np.mean((known[1] - known[0]) ** 2) / np.var(known[1])
    assert figures["eval/return_explained"] == pytest.approx(explained)
    assert figures["eval/pair_accuracy"] == pytest.approx(2 / 3)  # of a: (1, 0) wrong, (1, 2) and (0, 2) right
    assert figures["eval/q_taken"] == pytest.approx(3.1) and figures["eval/overestimation"] == pytest.approx(1.5 / 4)
    same = value_metrics(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 3.0]), ["a", "a"])
    assert same["eval/return_correlation"] == 0 == same["eval/return_explained"] and "eval/pair_accuracy" not in same


def test_best_rows_take_ties() -> None:
    """Bug: an arbitrary choice among equal returns, or an unknown one counted."""
    assert best_rows(torch.tensor([1.0, 5.0, 5.0, 0.0, math.nan])).tolist() == [False, True, True, False, False]
    assert best_rows(torch.tensor([math.nan])).tolist() == [True]


class CountsA(SequenceReward):
    """One point for each a that was said."""

    @property
    def bounds(self) -> Bounds:
        return Bounds(0.0, 20.0)

    def judge(self, episodes: Episodes) -> Tensor:
        inside = torch.arange(episodes.action_BH.shape[1]) < episodes.length_B[:, None]
        return ((episodes.action_BH == 0) & inside).float()


@pytest.mark.parametrize("context", [12, 7])
def test_greedy_answers(context: int) -> None:
    """Bug: answers of another prompt, ones that do not stop, or a cache that is full. Oracle: a prefix at a time."""
    rows = [row for row in ROWS if row.transitions <= context]
    items = [item for item, row in zip(ITEMS, ROWS, strict=True) if row.transitions <= context]
    policy = make_policy("reweighted", context=context)
    evaluator = LogEvaluator(LogPart(items, rows), CountsA(ACTIONS), 6, 1.0, [0.0], 9, 9, True)
    evaluation = evaluator.evaluate(policy)
    prompts = list(dict.fromkeys(item.prompt for item in items))
    assert [prompt for prompt, _ in evaluation.samples] == prompts
    said = []
    for prompt in prompts:
        longest = max(len(other) for other in prompts)  # all are answered together
        ids: list[int] = []
        while len(ids) < min(6, context + 1 - longest) and (not ids or ids[-1] != 5):
            read = torch.tensor([*TOKENIZER.encode(prompt).tolist(), *ids])[None]
            with torch.no_grad():
                ids.append(int(policy.q({k: v[0, -1] for k, v in policy.network(read).items()}).argmax()))
        said.append(ids)
    assert [text for _, text in evaluation.samples] == [TOKENIZER.decode(ids) for ids in said]
    figures = evaluation.metrics
    assert figures["eval/return"] == pytest.approx(sum(ids.count(0) for ids in said) / len(said))
    assert figures["eval/length"] == pytest.approx(sum(map(len, said)) / len(said))
    assert figures["eval/unfinished_share"] == pytest.approx(sum(5 not in ids for ids in said) / len(said))
    assert next(iter(evaluator.best_candidates())) == "eval/return" and "eval/return_beta_0" in figures
    first_said = {p: [i.completion.split("dd")[0].count("a") for i in items if i.prompt == p] for p in prompts}
    means = [sum(counts) / len(counts) for counts in first_said.values()]
    assert figures["eval/return_logged"] == pytest.approx(sum(means) / len(prompts))


def test_figures_without_a_judge_or_values() -> None:
    """Bug: a correlation of logits with returns, or a figure that the best policy is chosen by and that is not there."""
    policy = make_policy("boltzmann", ())
    for learns in (False, True):
        evaluator = LogEvaluator(LogPart(ITEMS, ROWS), None, 4, 1.0, [], 2, 2, learns)
        evaluation = evaluator.evaluate(policy)
        assert set(evaluator.best_candidates()) <= set(evaluation.metrics) and len(evaluation.samples) == 2
        assert ("eval/return_correlation" in evaluation.metrics) == learns and "eval/return" not in evaluation.metrics
        assert next(iter(evaluator.best_candidates())) == "eval/nll_best"
        assert all(map(math.isfinite, evaluation.metrics.values()))
        assert evaluator.table(evaluation, policy, 3, "done").row_count > 5


@torch.no_grad()
def test_a_half_never_chooses_its_own_temperature() -> None:
    """Bug: each row scored at the temperature of its own half, which is the best for it, so that the figure flatters.

    With Q ten times as large the halves differ: rows at even places are scored with what the odd ones fit, and the reverse.
    """
    policy = make_policy("boltzmann", ())
    for parameter in policy.network.projections.parameters():
        parameter.mul_(10.0)
    sums = row_sums(policy, ROWS, [])
    halves: list[list[tuple[Tensor, int]]] = [[], []]
    for b, row in enumerate(ROWS):
        halves[b % 2] += [(policy.q({"q": output["q"]}), taken) for output, taken in slowly(policy, row)]
    fitted = [fit_inverse_temperature(torch.stack([q for q, _ in h]), torch.tensor([a for _, a in h])) for h in halves]
    for half in (0, 1):
        found = float(sums.nats_BP[half::2].sum())
        own, other = (-sum(float((q * b).log_softmax(-1)[a]) for q, a in halves[half]) for b in (fitted[half], fitted[1 - half]))
        assert found == pytest.approx(other, rel=1e-3) and abs(own - other) > 0.005 * own


def test_greedy_answers_to_training_prompts_are_scored_too() -> None:
    """Bug: the held-out prompts stand in both rows, or more prompts are answered than of the held-out part."""
    policy, rest = make_policy("reweighted"), LogPart(ITEMS[:1], ROWS[:1])
    whole = LogEvaluator(LogPart(ITEMS, ROWS), CountsA(ACTIONS), 6, 1.0, [], 9, 9, True, rest).evaluate(policy).metrics
    alone = LogEvaluator(rest, CountsA(ACTIONS), 6, 1.0, [], 9, 9, True).evaluate(policy).metrics
    assert whole["eval/return_train"] == pytest.approx(alone["eval/return"]) and "eval/return_train" not in alone
    few = LogEvaluator(rest, CountsA(ACTIONS), 6, 1.0, [], 2, 2, True, LogPart(ITEMS, ROWS))
    assert len(few.seen) == min(2, len({item.prompt for item in ITEMS}))
    assert "eval/return_train" not in LogEvaluator(rest, None, 6, 1.0, [], 2, 2, True, rest).evaluate(policy).metrics


@torch.no_grad()
def test_figures_of_rows_by_hand() -> None:
    """Bug: a mean over rows in the place of one over tokens, or best rows by the discounted return.

    Gamma .1: the second row's 2, paid at its fifth decision (with the end), is worth .0002 there, and 2 as it is paid. A quarter
    of three rows is one row: that of the greatest return as paid.
    """
    items = [Trajectory("ab", "a", (1.0,)), Trajectory("b", "dcab", (0.0, 0.0, 0.0, 2.0)), Trajectory("ab", "c", (0.5,))]
    rows = token_rows(items, TOKENIZER, TOKENIZER.eos_id)
    policy = make_policy("reweighted")
    figures = LogEvaluator(LogPart(items, rows), None, 4, 0.1, [], 2, 2, True).evaluate(policy).metrics
    sums = row_sums(policy, rows, [])
    assert sums.count_B.tolist() == [2, 5, 2]
    assert figures["eval/nll"] == pytest.approx(float(sums.nats_BP.sum() / 9))
    assert figures["eval/accuracy"] == pytest.approx(float(sums.hits_B.sum() / 9))
    assert figures["eval/nll_best"] == pytest.approx(float(sums.nats_BP[1, 0] / 5))
    assert float(sums.nats_BP.sum() / 9) != pytest.approx(float((sums.nats_BP[:, 0] / sums.count_B).mean()), rel=1e-5)
