"""A user's own Python code: a file that a setting names (`folder/my_rewards.py:score`) or a permitted module; what it does wrong.

Naming the file in `dqnlm train` (or in a file of --config-dir) is the permission to run it. A run's folder never is: what
builds such a part from there needs the very file permitted again, `allow_targets=[folder/my_rewards.py]`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Literal, cast

from dqnlm.errors import UserError
from dqnlm.utils.permissions import allowing, is_permitted, is_permitted_module, permitted
from dqnlm.utils.suggest import suggestion

Kind = Literal["function", "class"]
ERRORS = (Exception, SystemExit)  # what such code may raise and is explained; sys.exit() in it would end the run in silence
_EXAMPLES: dict[Kind, str] = {"function": "my_rewards.py:score", "class": "my_env.py:Corridor"}


def split(path: str, setting: str, kind: Kind) -> tuple[Path, str]:
    """The whole path of the file, and the name of what is meant in it.

    Raises:
        UserError: not of the form FILE.py:NAME.
    """
    file, _, name = path.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise UserError(f"{setting} is {path!r}; it must be FILE.py:{kind.upper()}, such as {_EXAMPLES[kind]}")
    return Path(file).expanduser().resolve(), name


def load(path: str, setting: str, kind: Kind) -> Callable[..., Any]:
    """The function or class that `FILE.py:NAME` names; runs the file, once for all uses until it changes.

    Args:
        path: FILE.py:NAME.
        setting: dotted key of the setting that holds it, for messages.
        kind: what is meant in the file.

    Raises:
        UserError: no permission, no such file, function or class, or an error while the file runs.
    """
    file, name = split(path, setting, kind)
    if not is_permitted(str(file)):
        raise UserError(
            f"{setting}={path} would run {file}, and this run's folder alone may not do that\n"
            f"  if you trust it, permit it: {shlex.quote(allowing(str(file)))}, for every command on the run"
        )
    if not file.is_file():
        raise UserError(f"{setting}={path}: there is no file {file}")
    try:
        module = _run(file, file.stat().st_mtime_ns)
    except ERRORS as error:
        raise UserError(f"{setting}={path}: {blame(error, file)}") from error
    found = getattr(module, name, None)
    is_meant = inspect.isclass if kind == "class" else callable
    if not is_meant(found):
        own = [n for n, v in vars(module).items() if is_meant(v) and not n.startswith("_")]
        raise UserError(f"{setting}={path}: {file.name} has no {kind} {name}{suggestion(name, own)}")
    return cast(Callable[..., Any], found)


@functools.lru_cache(maxsize=8)
def _run(file: Path, changed: int) -> ModuleType:
    """The module of a file, as it was when it was last changed (ns)."""
    name = f"dqnlm_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "a name that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: a dataclass in it looks its module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def explaining() -> Iterator[None]:
    """Turns an error that arises while a user's own code runs into UserError with its file and line; others pass."""
    try:
        yield
    except UserError:
        raise
    except ERRORS as error:
        if not _own_frames(error):
            raise
        raise UserError(blame(error, "")) from error


def blame(error: BaseException, place: Path | str) -> str:
    """Where in the user's own code an error arose, and what Python says.

    Args:
        error: as it was caught.
        place: the file or module that was running, for an error without a line in the user's own code.
    """
    if isinstance(error, SystemExit):
        message = f"SystemExit: it ends the program (sys.exit({error.code!r})); raise an error instead"
    else:
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    whole = "\n  the whole traceback: HYDRA_FULL_ERROR=1 dqnlm ..."
    frames = _own_frames(error)
    if frames:
        last = frames[-1]
        return f"{last.filename}, line {last.lineno}, in {last.name}: {message}\n  {last.line}{whole}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    return f"{place}: {message}{whole}"


def checksums() -> dict[str, str]:
    """Permitted module or file -> SHA-256 of its content, of those that this process has run."""
    files = {name: Path(name) for name in permitted() if name.endswith(".py")}
    for name, module in list(sys.modules.items()):
        if is_permitted_module(name) and getattr(module, "__file__", None):
            files[name] = Path(str(module.__file__))
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sorted(files.items()) if file.is_file()}


def used() -> str:
    """The permitted modules and files of this process, with commas; "" where there is none."""
    return ", ".join(sorted(permitted()))


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The lines of permitted files and modules that were running, the innermost last."""
    running = zip(traceback.walk_tb(error.__traceback__), traceback.extract_tb(error.__traceback__), strict=True)
    return [summary for (frame, _), summary in running if _is_own(frame)]


def _is_own(frame: FrameType) -> bool:
    return is_permitted(frame.f_code.co_filename) or is_permitted_module(str(frame.f_globals.get("__name__")))
