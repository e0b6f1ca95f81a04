"""Metrics, samples and settings of a run to Weights & Biases, or to files that `wandb sync` sends later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dqnlm.errors import UserError
from dqnlm.metrics import Metrics, Samples
from dqnlm.runs import tracking
from dqnlm.utils.suggest import suggestion

ONLINE, OFFLINE = "online", "offline"
MODES = (ONLINE, OFFLINE, "disabled")
ADVICE = "set WANDB_MODE=offline (or logger.mode=offline) to write files that `wandb sync` sends later"


class WeightsAndBiases:
    """See `dqnlm.metrics.Logger`.

    Args:
        folder: of the run; files are in its `wandb/`.
        purge_step: not used: the service leaves out steps that are not after those it has, so what a resumed run repeats is
            there once.
        settings: of the run.
        project: at the service.
        entity: user or team; None: the account's own.
        mode: online, offline, disabled; None: $WANDB_MODE, else online. DQNLM_OFFLINE=1 makes online offline.

    Raises:
        UserError: the package is not installed, or nobody is logged in.
    """

    def __init__(
        self, folder: Path, purge_step: int | None, settings: Mapping[str, Any], *,
        project: str, entity: str | None, mode: Literal["online", "offline", "disabled"] | None,
    ) -> None:  # fmt: skip
        del purge_step
        try:
            import wandb
        except ImportError:
            raise UserError("logger=wandb needs the package wandb: pip install 'dqnlm[wandb]', or set logger=none") from None
        asked = mode or os.environ.get("WANDB_MODE", ONLINE)
        if asked not in MODES:
            raise UserError(f"WANDB_MODE={asked} is none of {', '.join(MODES)}{suggestion(asked, MODES, 'WANDB_MODE=')}")
        self._kept_here = asked == ONLINE and tracking.stays_here()
        self._mode = OFFLINE if self._kept_here else asked
        if self._mode == ONLINE and not wandb.api.api_key:
            raise UserError(f"logger=wandb: nobody is logged in on this machine\n  type wandb login, or {ADVICE}")
        self._wandb: Any = wandb
        self._folder, self._settings = folder, settings
        self._project, self._entity = project, entity
        self._run: Any = None

    def open(self) -> list[str]:
        """Begins the run, or goes on with it.

        Raises:
            UserError: the service cannot be reached, or refuses.
        """
        name, is_known = tracking.identity(self._folder, "wandb")
        # Without the network nothing can be asked about the run; `wandb sync` joins what has the same id.
        joined = {"resume": "allow"} if self._mode == ONLINE else {}
        quiet = self._wandb.Settings(console="off", silent=True)
        try:
            self._run = self._wandb.init(
                project=self._project, entity=self._entity, id=name, name=tracking.label(self._folder), dir=str(self._folder),
                config=dict(self._settings), mode=self._mode, settings=quiet, **joined,
            )  # fmt: skip
        except self._wandb.errors.Error as error:
            raise UserError(f"logger=wandb: {' '.join(str(error).split())}\n  {ADVICE}") from error
        if self._mode == ONLINE:
            return [f"wandb: {self._run.url}"]
        why = " (DQNLM_OFFLINE is set)" if self._kept_here else ""
        joined_to = f"--id {name} " if is_known else ""
        send = f"; to send it: wandb sync {joined_to}{self._folder / 'wandb'}/*-{name}"
        return [f"wandb: {self._mode}{why}{send if self._mode == OFFLINE else ''}"]

    def write(self, step: int, metrics: Metrics) -> None:
        self._run.log(dict(metrics), step=step)

    def write_samples(self, step: int, samples: Samples) -> None:
        if samples:
            table = self._wandb.Table(columns=["prompt", "text"], data=[list(sample) for sample in samples])
            self._run.log({"samples": table}, step=step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
