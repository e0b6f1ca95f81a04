"""Metrics, samples and settings of a run to Trackio: a database on this machine, or a Space of the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dqnlm.errors import UserError
from dqnlm.metrics import Metrics, Samples
from dqnlm.runs import tracking

# By these the package itself would send to the network.
PLACES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class Trackio:
    """See `dqnlm.metrics.Logger`.

    Args:
        folder: of the run.
        purge_step: not used: what a resumed run repeats is written a second time.
        settings: of the run.
        project: in which the run stands.
        space: OWNER/NAME of a Space of the Hub; None: the database on this machine ($TRACKIO_DIR). DQNLM_OFFLINE=1 means None.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(
        self, folder: Path, purge_step: int | None, settings: Mapping[str, Any], *, project: str, space: str | None
    ) -> None:
        del purge_step
        try:
            import trackio
        except ImportError:
            raise UserError(
                "logger=trackio needs the package trackio: pip install 'dqnlm[trackio]', or set logger=none"
            ) from None
        self._trackio, self._folder, self._settings = trackio, folder, settings
        sent = space or next((os.environ[name] for name in PLACES if os.environ.get(name)), None)
        self._kept_here = sent is not None and tracking.stays_here()
        self._project, self._space, self._sent = project, None if self._kept_here else space, sent
        self._is_open = False

    def open(self) -> list[str]:
        """Begins the run, or goes on with it.

        Raises:
            UserError: the place cannot be used.
        """
        name, _ = tracking.identity(self._folder, "trackio")
        name = f"{tracking.label(self._folder)} {name}"  # by its name a run is found again
        try:
            with self._quiet():
                self._trackio.init(
                    project=self._project, name=name, config=dict(self._settings), space_id=self._space, resume="allow",
                    embed=False, auto_log_cpu=False, auto_log_gpu=False,
                )  # fmt: skip
        except (ValueError, OSError) as error:
            raise UserError(f"logger=trackio: {' '.join(str(error).split())}") from error
        self._is_open = True
        if self._sent is not None and not self._kept_here:
            return [f"trackio: sent to {self._sent}"]
        why = " (DQNLM_OFFLINE is set)" if self._kept_here else ""
        return [f"trackio: kept on this machine{why}; to look at it: trackio show --project {self._project}"]

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """The package prints, and reads where to send from variables, which do not count where nothing may be sent."""
        kept = {name: os.environ.pop(name) for name in PLACES if self._kept_here and name in os.environ}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            os.environ.update(kept)

    def write(self, step: int, metrics: Metrics) -> None:
        self._trackio.log(dict(metrics), step=step)

    def write_samples(self, step: int, samples: Samples) -> None:
        if samples:
            table = self._trackio.Table(columns=["prompt", "text"], data=[list(sample) for sample in samples])
            self._trackio.log({"samples": table}, step=step)

    def close(self) -> None:
        if self._is_open:
            with self._quiet():
                self._trackio.finish()
