"""Settings of the groups `policy` and `pretraining`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dqnlm.errors import UserError
from dqnlm.utils.paths import PathOrName


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """See configs/policy/ and `dqnlm.agent.policy.Policy`.

    Attributes:
        kind: the policy that evaluations score and that writes samples.
        beta: of the reweighted policy, nats per unit of return; None for the others.
        acting_q: of two Q-functions (objective.td.twin), the one that acts.
        temperature: of the boltzmann policy, in return units; None: fitted to held-out text.
        weights: of several rewards (data.rewards), name -> number; None: 1 over their number each.

    Raises:
        UserError: beta without the reweighted policy, or the reweighted policy without beta.
    """

    kind: Literal["boltzmann", "probability", "reweighted"]
    beta: float | None
    acting_q: Literal["min", "first", "mean"]
    temperature: float | None
    weights: dict[str, float] | None

    def __post_init__(self) -> None:
        if self.kind == "reweighted" and self.beta is None:
            raise UserError("policy.kind=reweighted needs policy.beta, in nats per unit of return (1 is a start)")
        if self.kind != "reweighted" and self.beta is not None:
            raise UserError("policy.beta belongs to policy.kind=reweighted; set policy.beta=null")
        if self.temperature is not None and (self.kind != "boltzmann" or not 0 < self.temperature < math.inf):
            raise UserError(
                f"policy.temperature={self.temperature} must be a number above 0, of policy.kind=boltzmann; set it "
                "to null"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """See configs/pretraining/.

    Attributes:
        updates: gradient steps of behaviour cloning on the data's own answers before the first round; 0 for none.
        lr: their learning rate; None: optimizer.lr.
        batch_size: rows in each of them; None: trainer.batch_size.
        init_from: run whose best weights to start from; None: fresh weights.
        init_scale: factor of that run's Q.

    Raises:
        UserError: a number outside its range.
    """

    updates: int
    lr: float | None
    batch_size: int | None
    init_from: PathOrName | None
    init_scale: float

    def __post_init__(self) -> None:
        if self.updates < 0:
            raise UserError(f"pretraining.updates must be at least 0, not {self.updates}")
        if self.lr is not None and self.lr <= 0:
            raise UserError(f"pretraining.lr must be above 0 (or null for optimizer.lr), not {self.lr}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(
                f"pretraining.batch_size must be at least 1 (or null for trainer.batch_size), not {self.batch_size}"
            )
        if self.init_scale <= 0:
            raise UserError(f"pretraining.init_scale must be above 0, not {self.init_scale}")
        if self.init_scale != 1 and self.init_from is None:
            raise UserError(
                "pretraining.init_scale is a factor of another run's Q: set pretraining.init_from=RUN, or leave it at 1"
            )
