"""Hydra's own settings, typed or in a file: which of them the commands obey, and what is refused because nothing would.

They are read where Hydra has composed them (`HydraNode`), so that it does not matter where and how they were written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dqnlm.config.composition import HydraNode, parse_overrides
from dqnlm.errors import UserError

RUN, SWEEP, SUBDIR = "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"
# What nobody has chosen: in configs/train.yaml, and by Hydra for another root file without a node `hydra`.
UNCHOSEN = {
    RUN: ("${output_dir}/unnamed", "outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}"),
    SWEEP: ("${output_dir}/unnamed", "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"),
    SUBDIR: ("${dqnlm_job_folder:${hydra.job.num},${hydra.job.override_dirname}}", "${hydra.job.num}"),
}
OF_SWEEPS = ("hydra.sweep", "hydra.sweeper", "hydra.launcher", "hydra/sweeper", "hydra/launcher")
OF_RUNS = ("hydra.run",)
_NUMBERED = re.compile(r"\$\{hydra[.:]job\.num\}(-.*)?")  # tables find a job by the number before the first dash
_NAMES = "hydra.job.config.override_dirname.exclude_keys"


def is_multirun(node: HydraNode, typed: bool) -> bool:
    """Whether the jobs are those of a sweep: by -m, or by hydra.mode in a file.

    Raises:
        UserError: the two contradict each other.
    """
    mode = node.get("hydra.mode")
    if typed and mode == "RUN":
        raise UserError("hydra.mode=RUN is of one run, and -m of several: leave one of them out")
    return typed or mode == "MULTIRUN"


def named_folder(node: HydraNode, key: str) -> str | None:
    """The folder of the run, or of the sweep, that a file or the command line names; None where neither does.

    Raises:
        UserError: it is empty.
    """
    raw = node.get(key)
    if raw is None or raw in UNCHOSEN[key]:
        return None
    value = node.resolved(key)
    if not value.strip():
        raise UserError(f"{key} is empty: name a folder, or leave it out for one below output_dir")
    return value


def sweep_params(node: HydraNode) -> list[str]:
    """What a file sweeps over, `hydra.sweeper.params`, as overrides, which the sweeper puts before those typed."""
    params = node.get("hydra.sweeper.params")
    return [f"{key}={value}" for key, value in params.items()] if isinstance(params, dict) else []


def has_names_of_its_own(node: HydraNode) -> bool:
    """Whether a file or the command line chose the settings that the names of jobs leave out."""
    return bool(node.get(_NAMES))


def require(node: HydraNode, overrides: Sequence[str], multirun: bool) -> None:
    """Refuses settings of Hydra that would have no effect, or put jobs where they are not found again.

    Raises:
        UserError: with the way out.
    """
    for override in parse_overrides(overrides):
        key, text = str(override.key_or_group), override.input_line or ""
        if multirun and _is_below(key, OF_RUNS):
            raise UserError(f"{text}: a sweep has a folder for all its jobs\n  name it with {SWEEP}=FOLDER")
        if not multirun and _is_below(key, OF_SWEEPS):
            way_out = f"; the folder of one run: {RUN}=FOLDER" if key == SWEEP else ""
            raise UserError(f"{text}: this is a setting of sweeps, and this is one run\n  add -m to sweep{way_out}")
    if multirun:
        _require_a_folder_for_each_job(node, overrides)
        size = node.get("hydra.sweeper.max_batch_size")
        if size is not None and not (isinstance(size, int) and size >= 1):
            raise UserError(f"hydra.sweeper.max_batch_size={size}: it counts jobs and must be 1 or more, or null for all at once")
        if node.get("hydra.output_subdir") != ".hydra":
            raise UserError(
                f"hydra.output_subdir={_shown(node.get('hydra.output_subdir'))}: the settings of each job of a sweep are read "
                "back from its folder .hydra\n  leave hydra.output_subdir out"
            )


def _require_a_folder_for_each_job(node: HydraNode, overrides: Sequence[str]) -> None:
    """Raises UserError where `hydra.sweep.subdir` may be the same for two jobs, or a folder within a folder."""
    raw = node.get(SUBDIR)
    if raw in UNCHOSEN[SUBDIR]:
        return
    way_out = (
        f"\n  leave {SUBDIR} out (a job's folder is named by its number and what it varies; {SWEEP}=FOLDER names that of the "
        f"sweep), or begin it with the number: '{SUBDIR}=${{hydra.job.num}}-NAME'"
    )
    found = _NUMBERED.fullmatch(str(raw))
    if found is None:
        raise UserError(f"{SUBDIR}={_shown(raw)} does not give each job a folder of its own that is found again{way_out}")
    slashes = any("/" in text for text in overrides if "override_dirname" in str(raw))
    if slashes or "/" in (found[1] or ""):
        raise UserError(f"{SUBDIR}={_shown(raw)} makes folders within folders, in which jobs are not found again{way_out}")


def _is_below(key: str, parents: Sequence[str]) -> bool:
    return any(key == parent or key.startswith((f"{parent}.", f"{parent}/")) for parent in parents)


def _shown(value: object) -> str:
    return "null" if value is None else str(value)
