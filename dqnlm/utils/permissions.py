"""Permission to run code from outside dqnlm: given on the command line, for this process only."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

from dqnlm.errors import UserError

# Prefixes that the command line of this process has permitted; configuration files never add to them.
_permitted: set[str] = set()


def permit_targets(prefixes: Any) -> None:
    """Allows `_target_` below these modules, and these Python files, from now on, for this process only.

    Args:
        prefixes: the name of a module or the path of a file (it ends in .py), or a list of them.

    Raises:
        UserError: one is neither.
    """
    for prefix in prefixes if isinstance(prefixes, list) else [prefixes]:
        if isinstance(prefix, str) and prefix.endswith(".py"):
            _permitted.add(str(Path(prefix).expanduser().resolve()))
            continue
        if not isinstance(prefix, str) or not all(part.isidentifier() for part in prefix.split(".")):
            raise UserError(f"allow_targets: {prefix!r} is no module name\n  write +allow_targets=[my_rewards]")
        _permitted.add(prefix)


def is_permitted(name: str) -> bool:
    """Whether `permit_targets` allowed exactly this; a file by its absolute path."""
    return name in _permitted


def is_permitted_module(name: str) -> bool:
    """Whether `permit_targets` allowed this module or a package that holds it."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in _permitted)


def forget_permissions() -> None:
    """Revokes the permissions of `permit_targets` (for tests and long-lived sessions)."""
    _permitted.clear()


def resume_command(folder: Path, *overrides: str, world: int | None = None) -> str:
    """The command that goes on with a run, with the permissions that this process has.

    Args:
        folder: of the run.
        overrides: settings to change.
        world: processes; None: as many as this one was started with.
    """
    allowed = [allowing()] if _permitted else []
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) if world is None else world
    start = ["torchrun", f"--nproc-per-node={here}", "-m", "dqnlm"] if here > 1 else ["dqnlm"]
    return shlex.join([*start, "resume", str(folder), *overrides, *allowed])


def allowing(*more: str) -> str:
    """The setting that permits all that is permitted, and these modules and files, in Hydra's grammar."""
    names = [*sorted(_permitted), *more]
    quoted = [name if re.fullmatch(r"[\w./-]+", name, re.ASCII) else "'" + name.replace("'", "\\'") + "'" for name in names]
    return f"+allow_targets=[{','.join(quoted)}]"


def allowing_flags() -> list[str]:
    """The words that permit all that is permitted to commands that read a run (eval, generate ...)."""
    return [word for name in sorted(_permitted) for word in ("--allow-targets", name)]


def permitted() -> frozenset[str]:
    """All modules and files that are allowed."""
    return frozenset(_permitted)
