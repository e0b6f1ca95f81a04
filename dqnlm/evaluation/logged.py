"""Evaluation on the held-out part of a log: its rows (`evaluation.logged_rows`), and greedy answers to its prompts.

eval/length             tokens of a greedy answer, its end token included
eval/unfinished_share   answers that did not end before `env.horizon`, or the network's context; absent without an end token
eval/distinct_2         different pairs of tokens over all pairs, of all answers together
eval/return             mean reward of the greedy answers by the run's reward function (`reward=`); absent without one
eval/return_error       its standard error
eval/return_train       the same of greedy answers to as many prompts of the training part: how much of the log was learned at all
eval/return_logged      mean reward by the same function of the logged completions of the same prompts
eval/return_NAME        of a mixture (`reward=mixture`), that of its part NAME

With several rewards (data.rewards) everything is of sum_i w_i Q_i and of the return sum_i w_i R_i, by the policy's weights;
so is the reward of answers where the parts of the mixture have the rewards' names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.table import Table
from torch import Tensor

from dqnlm.agent.generation import answers
from dqnlm.agent.policy import Policy
from dqnlm.data.tokenizers.ended import before_end
from dqnlm.data.trajectories.log import LogPart
from dqnlm.data.trajectories.rows import TokenRow
from dqnlm.evaluation import diversity
from dqnlm.evaluation.base import Evaluation, Evaluator
from dqnlm.evaluation.episodes import RETURN_ERROR, REWARD
from dqnlm.evaluation.logged_rows import BEST_SHARE, best_rows, of_each_reward, row_sums, value_metrics
from dqnlm.metrics import Metric, Metrics
from dqnlm.networks.noisy import set_noise
from dqnlm.rewards.base import Episodes, Reward
from dqnlm.types import DECISION

_AT_ONCE = 64  # prompts in one forward
NATS = "nats per token"
OF_ROWS = (
    Metric("eval/nll_best", f"nats on the best {BEST_SHARE:.0%} of rows",
           "Negative log-likelihood of the best logged rows", NATS, False),
    Metric("eval/nll", "nats a token", "Negative log-likelihood of logged tokens, declared policy", NATS, False),
    Metric("eval/accuracy", "accuracy, greedy", "Logged tokens that the greedy policy chooses", "share of tokens", True),
)  # fmt: skip
OF_Q = (
    Metric("eval/return_correlation", "correlation of the two", "Correlation of Q with the return, over rows", "r", True),
    Metric("eval/return_explained", "variance explained", "Variance of the returns that Q explains", "share", True),
    Metric("eval/q_taken", "Q of logged tokens, and their return", "Mean Q of logged tokens", REWARD),
    Metric("eval/pair_accuracy", "pairs of a prompt in order", "Pairs of rows of a prompt that Q orders rightly", "share"),
    Metric("eval/overestimation", "Q above the return by", "Mean Q of logged tokens less their return", REWARD),
)
OF_ANSWERS = (
    Metric("eval/length", "tokens of greedy answers", "Length of a greedy answer", "tokens"),
    Metric("eval/unfinished_share", "answers without an end", "Greedy answers without an end token", "share"),
    Metric("eval/distinct_2", "distinct-2 of answers", "Distinct pairs of tokens in greedy answers", "share of pairs"),
)
JUDGED = (
    Metric("eval/return", "reward of greedy answers", "Reward of greedy answers to held-out prompts", REWARD, True),
    RETURN_ERROR,
    Metric("eval/return_logged", "reward of the log", "Reward of the log's answers to the same prompts", REWARD),
    Metric("eval/return_train", "  to training prompts", "Reward of greedy answers to prompts that were trained on", REWARD),
)
# As the table lists them.
_SHOWN = ("return", "return_train", "nll", "nll_best", "accuracy", "q_taken", "return_correlation", "return_explained",
          "pair_accuracy", "length", "unfinished_share", "distinct_2")  # fmt: skip


class LogEvaluator(Evaluator):
    """Scores a policy on held-out rows and prompts; see the module's text.

    Args:
        heldout: the rows.
        judge: reward of an answer, from its text; None: answers are not scored.
        horizon: most tokens of an answer.
        gamma: discount of one decision.
        betas: further strengths of a reweighted policy.
        samples: answers shown.
        prompts: different prompts that are answered, at most.
        learns_returns: Q is a return, not a preference.
        seen: the training part; greedy answers to its first prompts are scored too, where there is a judge.
    """

    def __init__(
        self,
        heldout: LogPart,
        judge: Reward | None,
        horizon: int,
        gamma: float,
        betas: Sequence[float],
        samples: int,
        prompts: int,
        learns_returns: bool,
        seen: LogPart | None = None,
    ) -> None:
        self.rows, self.judge, self.horizon, self.betas, self.samples = heldout.rows, judge, horizon, betas, samples
        self.learns_returns = learns_returns
        self.texts = [item.prompt for item in heldout.items]
        self.came_RB, self.paid_RB = (of_each_reward(heldout.items, heldout.rows, discount) for discount in (gamma, 1.0))
        self.asked = [self.texts.index(text) for text in dict.fromkeys(self.texts)][:prompts]
        self.seen = [] if seen is None or judge is None else _first_rows(seen, prompts)
        self.metrics = (*(JUDGED if judge else ()), *OF_ROWS, *(OF_Q if learns_returns else ()), *OF_ANSWERS)

    @torch.no_grad()
    def evaluate(self, policy: Policy) -> Evaluation:
        """Computes all metrics; changes only the policy's fitted temperature."""
        policy.network.eval()
        set_noise(policy.network, False)
        metrics = self._measure_rows(policy)
        completions = self._answers(policy, self.rows, self.asked)
        metrics |= self._measure_completions(policy, completions)
        decode = policy.tokenizer.decode
        shown = [
            (decode(self.rows[place].ids[: self.rows[place].prompt].tolist()), decode(ids))
            for place, ids in list(zip(self.asked, completions, strict=True))[: self.samples]
        ]
        return Evaluation(metrics, shown, policy.temperature)

    def _measure_rows(self, policy: Policy) -> Metrics:
        sums = row_sums(policy, self.rows, self.betas)
        count, best = sums.count_B.sum(), best_rows(_weighed(self.paid_RB, policy))
        metrics = {
            "eval/nll": float(sums.nats_BP[:, 0].sum() / count),
            "eval/accuracy": float(sums.hits_B.sum() / count),
        }
        # Best rows of unknown tokens alone leave nothing to score; all rows then stand in for them.
        best = best if bool(sums.count_B[best].any()) else torch.ones_like(best)
        nats_P = sums.nats_BP[best].sum(0) / sums.count_B[best].sum()
        names = ["", *(f"_beta_{beta:g}" for beta in self.betas)]
        metrics |= {f"eval/nll_best{name}": float(nats) for name, nats in zip(names, nats_P, strict=False)}
        if self.learns_returns:
            metrics |= value_metrics(sums.q_B / sums.count_B, _weighed(self.came_RB, policy), self.texts)
        return metrics

    def _answers(self, policy: Policy, rows: list[TokenRow], asked: list[int]) -> list[list[int]]:
        """Greedy answers to the prompts of these rows, each with its end token where it has one."""
        completions: dict[int, list[int]] = {}
        room = policy.network.max_observations
        order = sorted(asked, key=lambda place: rows[place].prompt)
        for begin in range(0, len(order), _AT_ONCE):
            places = order[begin : begin + _AT_ONCE]
            ids = [torch.from_numpy(rows[i].ids[: rows[i].prompt]).long() for i in places]
            prompt_EP, length_E = _padded(ids, policy.device)
            most = self.horizon if room is None else min(self.horizon, room - prompt_EP.shape[1])
            action_EH, count_E = answers(
                policy.network, prompt_EP, length_E, lambda o: policy.q(o).argmax(-1), policy.tokenizer.eos_id, most
            )
            for place, row, count in zip(places, action_EH.tolist(), count_E.tolist(), strict=True):
                completions[place] = row[:count]
        return [completions[place] for place in asked]

    def _measure_completions(self, policy: Policy, completions: list[list[int]]) -> Metrics:
        eos_id = policy.tokenizer.eos_id
        metrics = {"eval/length": sum(map(len, completions)) / len(completions)}
        if eos_id is not None:
            metrics["eval/unfinished_share"] = sum(eos_id not in ids for ids in completions) / len(completions)
        metrics["eval/distinct_2"] = diversity.distinct_share([before_end(ids, eos_id) for ids in completions], 2)
        if self.judge is None:
            return metrics
        return_B = self._returns_of([self.rows[place] for place in self.asked], completions, policy)
        parts = {f"eval/return_{name}": float(part.sum(1).mean()) for name, part in self.judge.parts().items()}
        error = float(return_B.std()) / len(completions) ** 0.5 if len(completions) > 1 else 0.0
        metrics |= {"eval/return": float(return_B.mean()), "eval/return_error": error} | parts
        if self.seen:
            answered = self._answers(policy, self.seen, list(range(len(self.seen))))
            metrics["eval/return_train"] = float(self._returns_of(self.seen, answered, policy).mean())
        return metrics | {"eval/return_logged": self._return_logged(policy)} | self._betas(policy)

    def _return_logged(self, policy: Policy) -> float:
        """Mean reward of the logged completions of the same prompts: the mean for each prompt, then over prompts."""
        number = {self.texts[place]: k for k, place in enumerate(self.asked)}
        places = [place for place, text in enumerate(self.texts) if text in number]
        rows = [self.rows[place] for place in places]
        return_B = self._returns_of(rows, [_first_completion(row) for row in rows], policy).cpu()
        prompt_B = torch.tensor([number[self.texts[place]] for place in places])
        sum_P = torch.zeros(len(number)).index_add(0, prompt_B, return_B)
        return float((sum_P / prompt_B.bincount()).mean())

    def _returns_of(self, rows: list[TokenRow], completions: list[list[int]], policy: Policy) -> Tensor:
        """The rewards return_B of answers to the prompts of these rows."""
        assert self.judge is not None
        device = policy.device
        prompts = [torch.from_numpy(row.ids[: row.prompt]).long() for row in rows]
        prompt_BP, prompt_length_B = _padded(prompts, device)
        action_BH, length_B = _padded([torch.tensor(ids) for ids in completions], device)
        nothing_B = torch.zeros_like(length_B)
        whole_BH = self.judge.judge(
            Episodes(prompt_BP, prompt_length_B, action_BH, length_B, action_BH[:, :0], nothing_B)
        )
        parts = self.judge.parts()
        if policy.weights and policy.weights.keys() <= parts.keys():
            whole_BH = torch.stack([w * parts[name] for name, w in policy.weights.items()]).sum(0)
        return whole_BH.sum(1)

    def _betas(self, policy: Policy) -> Metrics:
        """Mean reward of the greedy answers with other strengths."""
        metrics, fixed = {}, policy.beta
        if policy.declared == "reweighted":
            try:
                for policy.beta in self.betas:
                    answered = self._answers(policy, self.rows, self.asked)
                    mean = self._returns_of([self.rows[place] for place in self.asked], answered, policy).mean()
                    metrics[f"eval/return_beta_{policy.beta:g}"] = float(mean)
            finally:
                policy.beta = fixed
        return metrics

    def table(self, evaluation: Evaluation, policy: Policy, step: int, done: str) -> Table:
        """Table of the policy and the log."""
        found = evaluation.metrics
        came = float(_weighed(self.came_RB, policy).nanmean())
        beside = {"eval/return": found.get("eval/return_logged", 0.0), "eval/q_taken": came}
        labels = {metric.name: metric.label for metric in self.metrics} | {
            "eval/nll": f"nats a token, {policy.declared} policy"
        }
        names = {f"eval/{name}": labels[f"eval/{name}"] for name in _SHOWN if f"eval/{name}" in labels}
        table = Table(title=f"evaluation after {step} updates ({done})", title_justify="left")
        table.add_column("held-out log", no_wrap=True)
        for heading in ("policy", "log"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, words in names.items():
            if name in found:
                table.add_row(words, f"{found[name]:.3f}", f"{beside[name]:.3f}" if name in beside else "")
            for key, value in found.items():
                if key.startswith(f"{name}_beta_"):
                    table.add_row(f"  beta {key.removeprefix(f'{name}_beta_')}", f"{value:.3f}")
        return table


def _weighed(x_RB: Tensor, policy: Policy) -> Tensor:
    """sum_i w_i x_i by the weights of the policy's rewards, or the one row there is: x_B."""
    return (torch.tensor(list(policy.weights.values()) or [1.0], dtype=x_RB.dtype)[:, None] * x_RB).sum(0)


def _first_rows(part: LogPart, prompts: int) -> list[TokenRow]:
    """The first row of each of the first prompts."""
    first: dict[str, TokenRow] = {}
    for item, row in zip(part.items, part.rows, strict=True):
        if len(first) == prompts:
            break
        first.setdefault(item.prompt, row)
    return list(first.values())


def _padded(ids: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """ids_BW, right-padded with 0, and their lengths."""
    length_B = torch.tensor([len(run) for run in ids], device=device)
    return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device), length_B


def _first_completion(row: TokenRow) -> list[int]:
    """The agent's first turn: the decisions up to the first step without one."""
    after = row.flag_T[row.prompt - 1 :] & DECISION
    count = int(after.argmin()) if not after.all() else len(after)
    completions: list[int] = row.ids[row.prompt : row.prompt + count].tolist()
    return completions
