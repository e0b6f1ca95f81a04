"""Diagnostics of training at every log point, for every algorithm, and warnings about divergence or absent reward.

q/action_gap            mean of the best less the second best legal Q: the margin of the argmax (Bellemare et al. 2016)
q/largest               greatest Q in the newest batch; grows without bound where bootstrapping diverges
td/error_p50, _p90, _p99  quantiles of |target - prediction| in the newest batch, in return units
reward/deviation        of the rewards in the newest batch; 0: the rewards carry no signal
buffer/terminal_share   share of the decisions held that ended their episode
target/effective_period updates that the target network lags behind: its period, or 1 / polyak_rate
time/updates_per_decision, time/replay_ratio   gradient steps, and decisions learned from, for each decision taken

With learner.micro_batch_size the newest batch is the last rows of it, with several processes the rows of the first one.
(eval/overestimation, Q against the return that follows: `dqnlm.evaluation.episodes`.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from dqnlm.agent.learner import LastUpdate
from dqnlm.heads.base import Head
from dqnlm.metrics import Metrics
from dqnlm.ops.bootstrap import masked_q
from dqnlm.utils.output_names import all_q

if TYPE_CHECKING:
    from dqnlm.training.components import Components

_QUANTILES = (0.5, 0.9, 0.99)
_RUNAWAY = 10.0  # times the largest return that is possible, or was seen


@torch.no_grad()
def diagnostics(components: Components) -> Metrics:
    """Computes the module's metrics; copies from the device."""
    learner, buffer = components.learner, components.buffer
    metrics = {
        "buffer/transitions": float(components.ranks.total(buffer.transitions())),
        "buffer/terminal_share": float(buffer.terminal_share()),
    }
    if learner.target.copies and learner.requires.target:
        rate, period = learner.target.polyak_rate, learner.target.period
        metrics["target/effective_period"] = 1 / rate if rate is not None else float(period or 0)
    if components.env_steps:
        metrics["time/updates_per_decision"] = learner.updates / components.env_steps
        metrics["time/replay_ratio"] = float(learner.transitions) / components.env_steps
    return metrics if learner.last_update is None else metrics | _batch_metrics(learner.last_update, components.policy.head)


def _batch_metrics(last: LastUpdate, head: Head) -> Metrics:
    """Action gap, greatest Q, rewards and error quantiles over the decisions of the loss; {} where there is none."""
    batch = last.batch
    learn_BT = batch.learn_BT > 0
    if not bool(learn_BT.any()):
        return {}
    raw = [batch.at_decisions(last.outputs[name]) for name in all_q(last.outputs)]
    q_BTA = torch.cat([masked_q(head.value(raw_BTAN), batch.legal_BTA)[learn_BT] for raw_BTAN in raw])
    best_X2 = q_BTA.topk(min(2, q_BTA.shape[-1]), -1).values
    gap_X = (best_X2[:, 0] - best_X2[:, -1])[best_X2[:, -1].isfinite()]
    reward_X = batch.reward_BT[learn_BT]
    metrics = {"q/largest": float(best_X2[:, 0].max()), "reward/deviation": float(reward_X.std(correction=0))}
    metrics["reward/mean"] = float(reward_X.mean())
    if len(gap_X):
        metrics["q/action_gap"] = float(gap_X.mean())
    if last.error_BT is not None:
        error_X = last.error_BT[learn_BT].abs().float()
        values = error_X[: 2**20].quantile(torch.tensor(_QUANTILES, device=error_X.device))  # its limit is 2^24 numbers
        metrics |= {f"td/error_p{round(100 * q)}": float(v) for q, v in zip(_QUANTILES, values, strict=True)}
    return metrics


def warnings(metrics: Metrics, head: Head) -> dict[str, str]:
    """Warnings about suspicious metrics: key -> sentence."""
    found = {}
    bounds = [abs(float(bound)) for bound in (head.low, head.high)]
    most = (
        max(bounds) if all(math.isfinite(bound) for bound in bounds) else abs(metrics.get("rollout/return", math.inf))
    )
    largest = metrics.get("q/largest", 0.0)
    if largest > _RUNAWAY * max(most, 1.0):
        found["runaway"] = (
            f"the greatest Q is {largest:.3g}, but no return exceeds {most:.3g}: bootstrapping runs away. Try a slower target "
            "(target.period, target.polyak_rate), algorithm=double_dqn, or a lower optimizer.lr"
        )
    still = metrics.get("reward/deviation") == 0.0
    if still and (metrics.get("reward/mean") == 0.0 or metrics.get("buffer/terminal_share") == 0.0):
        found["reward"] = (
            f"every reward of the newest batch is {metrics['reward/mean']:g}: the rewards carry no signal yet. Look at the "
            "reward, or explore more"
        )
    return found
