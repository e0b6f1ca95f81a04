"""Hydra's launchers and sweepers that come as packages of their own: what they need, and settings without which they fail here.

Seen with hydra-core 1.3.8 and the versions of the extras in pyproject.toml.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence

from dqnlm.errors import UserError

# The typed choice -> (extra of this package, module of the plugin).
PLUGINS = {
    "hydra/launcher=joblib": ("joblib", "hydra_joblib_launcher"),
    "hydra/launcher=ray": ("ray-launcher", "hydra_ray_launcher"),
    "hydra/launcher=submitit_local": ("submitit", "hydra_submitit_launcher"),
    "hydra/launcher=submitit_slurm": ("submitit", "hydra_submitit_launcher"),
    "hydra/sweeper=optuna": ("optuna", "hydra_optuna_sweeper"),
}
RAY_INIT = "hydra.launcher.ray.init"
SUBMITIT_FOLDER = "hydra.launcher.submitit_folder"
STORAGE = "hydra.sweeper.storage"
ALONE = ("basic", "")  # the launcher that runs the jobs one after the other in this process


def require(overrides: Sequence[str]) -> None:
    """Refuses what is known to fail, before anything is started.

    Raises:
        UserError: the plugin is not installed, there is no SLURM, or its storage cannot work; with what to type.
    """
    for text, (extra, module) in PLUGINS.items():
        if text in overrides and not _is_installed(f"hydra_plugins.{module}"):
            raise UserError(f"{text} needs a package that is not installed\n  pip install 'dqnlm[{extra}]'")
    if "hydra/launcher=submitit_slurm" in overrides and shutil.which("sbatch") is None:
        raise UserError(
            "hydra/launcher=submitit_slurm: this machine has no `sbatch`, so it is no login node of a SLURM cluster\n"
            "  on one machine: hydra/launcher=joblib, or hydra/launcher=submitit_local"
        )
    if "hydra/sweeper=optuna" in overrides and _value(overrides, STORAGE) not in (None, "null"):
        version = importlib.metadata.version("sqlalchemy")
        if int(version.split(".")[0]) >= 2:
            raise UserError(
                f"{STORAGE}: Optuna 2 cannot use SQLAlchemy {version}\n  pip install 'dqnlm[optuna]', which takes one below 2"
            )


def further_settings(overrides: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Overrides to add to those of the user, who may set each otherwise.

    Ray: no dashboard, which would open a port. Connected to a cluster it refuses a size of its object store, which the
    launcher gives unless it is null. Submitit: its folder's `%j` is the job's number in files, and becomes a folder `%j` too.
    """
    wanted: dict[str, str] = {}
    if "hydra/launcher=ray" in overrides:
        wanted[f"{RAY_INIT}.include_dashboard"] = "false"
        if environment.get("RAY_ADDRESS") or _value(overrides, f"{RAY_INIT}.address") not in (None, "null", "local"):
            wanted[f"{RAY_INIT}.object_store_memory"] = "null"
    if any(text.startswith("hydra/launcher=submitit_") for text in overrides):
        wanted[SUBMITIT_FOLDER] = "${hydra.sweep.dir}/.submitit"
    new = {key: value for key, value in wanted.items() if _value(overrides, key) is None}
    return [f"{'+' if key.startswith(RAY_INIT) else ''}{key}={value}" for key, value in new.items()]


def _value(overrides: Sequence[str], key: str) -> str | None:
    """What was typed for a key, without quotes; None where nothing was."""
    typed = dict(text.lstrip("+").partition("=")[::2] for text in overrides)
    return typed[key].strip("'\"") if key in typed else None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent is there
        return False
