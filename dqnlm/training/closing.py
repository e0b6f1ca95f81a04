"""The last lines of a run: how long it took, its best figure, where everything is, and what can be done with it."""

from __future__ import annotations

import shlex
from typing import Any

from dqnlm.runs.console import clock
from dqnlm.training.components import Components
from dqnlm.utils.permissions import allowing_flags, resume_command


def closing_lines(components: Components, summary: dict[str, Any], rounds: dict[str, int]) -> list[str]:
    """Of a run that came to its end.

    Args:
        components: of the run.
        summary: as it is written.
        rounds: of the phases by name.
    """
    best, metric, folder = summary["best"], summary["best_metric"], components.directory.path
    label = next((m.label for m in components.evaluator.metrics if m.name == metric), metric)
    figure = f"; best {label} ({metric}) {best[metric]:.4g} after {best['step']:,.0f} updates" if best else ""
    more = {"trainer.rollouts": rounds.get("online", 0), "trainer.offline_rounds": rounds.get("offline", 0)}
    longer = next((f"{key}={2 * count}" for key, count in more.items() if count), None)
    return [
        f"finished in {clock(summary['totals']['wall_s'])}{figure}",
        f"  folder       {folder}",
        *(f"  {what:<12} {command}" for what, command in _next(components)),
        *([f"  train on     {resume_command(folder, longer)}"] if longer else []),
    ]


def _next(components: Components) -> list[tuple[str, str]]:
    """(what for, command), as they can be typed."""
    folder, task = str(components.directory.path), components.task
    allowed = allowing_flags()
    trial = "chat" if task.has_heldout_prompts else "generate"
    commands = [("curves", ["report", folder])]
    commands += [("try it", [trial, folder, *allowed])] if task.has_text else []
    commands.append(("test part" if "test" in task.parts else "score again", ["eval", folder, *allowed]))
    return [(what, shlex.join(["dqnlm", *words])) for what, words in commands]
