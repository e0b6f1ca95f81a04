"""Loads a user's Python function named by a setting, `folder/my_rewards.py:score`, with permission and error messages.

Naming the file in `dqnlm train` (or in a file of --config-dir) is the permission to run it. A saved run gives no
permission: loading it requires the file to be permitted again, `allow_targets=[folder/my_rewards.py]`.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from dqnlm.errors import UserError
from dqnlm.utils.permissions import is_permitted
from dqnlm.utils.suggest import suggestion


def split(path: str) -> tuple[Path, str]:
    """Splits into file and function.

    Raises:
        UserError: not of the form FILE.py:FUNCTION.
    """
    file, _, name = path.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise UserError(f"reward.path is {path!r}; it must be FILE.py:FUNCTION, such as my_rewards.py:score")
    return Path(file), name


def load(path: str) -> Callable[..., Any]:
    """Loads the function `FILE.py:FUNCTION`; runs the file once, and again after it changes.

    Raises:
        UserError: no permission, no such file or function, or an error while the file runs.
    """
    relative, name = split(path)
    file = relative.expanduser().resolve()
    if not is_permitted(str(file)):
        raise UserError(
            f"reward.path={path} would run {file}, and this run's folder alone may not do that\n"
            f"  if you trust it, permit it: dqnlm resume RUN '+allow_targets=[{file}]', dqnlm eval RUN --allow-targets {file}"
        )
    if not file.is_file():
        raise UserError(f"reward.path={path}: there is no file {file}")
    try:
        module = _run(file, file.stat().st_mtime_ns)
    except Exception as error:
        raise UserError(f"reward.path={path}: {blame(error, file)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(f"reward.path={path}: {file.name} has no function {name}{suggestion(name, own)}")
    found: Callable[..., Any] = function
    return found


@functools.lru_cache(maxsize=8)
def _run(file: Path, changed: int) -> ModuleType:
    """The module of a file, by its time of change (ns)."""
    name = f"dqnlm_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "a name that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: a dataclass in it looks its module up
    spec.loader.exec_module(module)
    return module


def blame(error: Exception, file: Path) -> str:
    """A user's error as a message: its place in the user's file, and Python's message."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"{file}, line {error.lineno}: SyntaxError: {error.msg}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if not own:
        return f"{file}: {said}"
    return f"{file}, line {own[-1].lineno}, in {own[-1].name}: {said}\n  {own[-1].line}"
