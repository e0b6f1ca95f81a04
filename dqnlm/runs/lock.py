"""One process at a time trains a run: a lock on a file of its folder, held by the process and released by its death.

The lock is the kernel's (`flock`), so nothing has to be cleaned up after a kill. On NFS it is as good as the server's locks;
where a file system has none, or the platform (Windows), the run goes on without.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from dqnlm.errors import UserError
from dqnlm.utils.files import require_regular
from dqnlm.utils.parsing import json_value

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Holds the run's lock; the file is gone afterwards.

    Raises:
        UserError: another process holds it; who, on which machine, and since when.
    """
    stream = _acquire(folder / NAME)
    try:
        if stream is not None:
            note = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat(" ", "seconds")}
            stream.truncate(0)
            stream.write(json.dumps(note))
            stream.flush()
        yield
    finally:
        if stream is not None:
            with suppress(OSError):
                (folder / NAME).unlink(missing_ok=True)  # while it is held: see `_acquire`
            stream.close()


def is_owned(folder: Path) -> bool:
    """Whether a process on this machine (or, by way of a shared file system with locks, on another) trains the run."""
    if fcntl is None or not (folder / NAME).is_file():
        return False
    with suppress(FileNotFoundError), (folder / NAME).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
    return False


def _acquire(path: Path) -> IO[str] | None:
    """The locked file; None where there are no locks."""
    while fcntl is not None:
        require_regular(path)
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            text = stream.read()
            stream.close()
            raise UserError(_refusal(path.parent, text)) from None
        except OSError as error:
            stream.close()
            if error.errno in WITHOUT_LOCKS:
                return None
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
        stream.close()  # its owner removed it between the opening and the lock
    return None


def _refusal(folder: Path, text: str) -> str:
    holder: dict[str, Any] = {}
    with suppress(ValueError):
        found = json_value(text)
        holder = found if isinstance(found, dict) else {}
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('since', '?')}"
    return (
        f"{folder} is being trained by another process ({who})\n"
        "  wait for its end, or stop it (kill -INT PID saves it first), then go on with it"
    )
