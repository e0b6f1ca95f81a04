"""Checkpoints: written atomically, the newest `keep_last` kept, damaged ones passed over at loading.

    checkpoints/step-00001200/   policy.pt    what acts: network, head, tokenizer, fitted temperature
                                 training.pt  all the rest: target, optimizer, buffer, environments, random states, counters
                                 sha256.json  checksums of both
    checkpoints/best/            policy.pt and sha256.json of the best evaluation so far

A checkpoint is written to a temporary folder, synced and renamed, so that a crash at any moment leaves the ones before.
Only tensors, numbers, strings, lists and dicts are stored; loading (`weights_only`) never executes code.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dqnlm.errors import UserError
from dqnlm.runs.reading import read_object
from dqnlm.utils.files import fsync_folder, sha256_of_file, write_json_atomic
from dqnlm.utils.permissions import resume_command

State = dict[str, Any]
BEST = "best"
ASIDE = ".tmp-old-"  # then the name that it had, and the process that moved it


# What is read of a part without asking whether it is there.
_KEPT: dict[str, dict[str, tuple[type, ...]]] = {
    "policy": {
        "network": (dict,), "head": (dict,), "tokenizer": (dict, type(None)), "legal": (torch.Tensor, type(None)),
        "declared": (str,), "temperature": (float, int), "step": (int,), "is_probability": (bool,), "beta": (float, int),
        "spec": (dict, list),
    },
    "training": {
        "learner": (dict,), "fingerprint": (str,), "trainer": (dict,), "buffer": (dict,), "env": (dict,),
        "exploration": (torch.Tensor,), "accumulator": (dict,), "random": (torch.Tensor,), "random_cuda": (list,),
    },
}  # fmt: skip


class Checkpoints:
    """The folder of a run's checkpoints."""

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder, self.keep_last = folder, keep_last

    def save(self, step: int, policy: State, training: State) -> Path:
        """Writes both, then removes all but the last `keep_last` checkpoints.

        Raises:
            UserError: the disk is full or the folder cannot be written; checkpoints from before are untouched.
        """
        path = self._write(f"step-{step:08d}", {"policy": policy, "training": training})
        for old in step_folders(self.folder)[: -self.keep_last]:
            shutil.rmtree(old)
        return path

    def save_best(self, policy: State) -> Path:
        """Writes the policy of the best evaluation."""
        return self._write(BEST, {"policy": policy})

    def _write(self, name: str, parts: dict[str, State]) -> Path:
        final, temporary = self.folder / name, self.folder / f".tmp-{name}-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(self.folder)
            temporary.mkdir()
            for part, state in parts.items():
                with (temporary / f"{part}.pt").open("wb") as stream:
                    torch.save(state, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
            write_json_atomic(temporary / "sha256.json", {p: sha256_of_file(temporary / f"{p}.pt") for p in parts})
            fsync_folder(temporary)
            _swap_in(temporary, final)
            fsync_folder(self.folder)
        except (OSError, RuntimeError) as error:
            # torch.save reports a full disk as a RuntimeError of its zip writer.
            shutil.rmtree(temporary, ignore_errors=True)
            kept = [p.name for p in step_folders(self.folder)]
            raise UserError(
                f"could not write the checkpoint {final}: {_reason(error)}. Checkpoints that are safe: "
                f"{', '.join(kept) or 'none'}. Free space or mend the folder's permissions, then: "
                f"{resume_command(self.folder.parent)}"
            ) from error
        return final


def _reason(error: Exception) -> Exception | BaseException:
    """What the disk said, which the zip writer of torch.save hides behind an error of its own."""
    return error.__context__ if isinstance(error.__context__, OSError) else error


def _swap_in(temporary: Path, final: Path) -> None:
    """Renames; what stood there before is moved aside first and removed last."""
    aside = final.with_name(f"{ASIDE}{final.name}-{os.getpid()}")
    if final.exists():
        final.rename(aside)
    temporary.rename(final)
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """What a process killed between two renames moved aside and never replaced. Only for the one who writes here."""
    for path in folder.glob(f"{ASIDE}*"):
        final = folder / path.name.removeprefix(ASIDE).rpartition("-")[0]
        if not final.exists():
            path.rename(final)


def _remove_leftovers(folder: Path) -> None:
    """Clears what a killed process left."""
    _put_back(folder)
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path)


def step_folders(folder: Path) -> list[Path]:
    """Checkpoints by step, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal())


def step_of(path: Path) -> int:
    """Updates done at the checkpoint in this folder."""
    return int(path.name.removeprefix("step-"))


def find(folder: Path, which: str) -> Path:
    """The checkpoint folder for `best`, `last`, or a step number.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    steps = step_folders(folder)
    if which == "last" and steps:
        return steps[-1]
    # Read where it lies: a run that goes on may be about to put the new one in its place.
    best = [path for path in (folder / BEST, *folder.glob(f"{ASIDE}{BEST}-*")) if path.is_dir()]
    if which == BEST and best:
        return best[0]
    for path in steps:
        if which.isdigit() and step_of(path) == int(which):
            return path
    there = [str(step_of(p)) for p in steps]
    names = ([BEST] if best else []) + (["last"] if steps else []) + there
    hint = f"\n  take one of them: --checkpoint {names[0]}" if names else ""
    raise UserError(f"no checkpoint {which!r} in {folder}; there are: {', '.join(names) or 'none'}{hint}")


def is_whole(path: Path) -> bool:
    """Whether every part is there with the checksum that was noted."""
    try:
        noted = read_object(path / "sha256.json")
        files = {path / f"{part}.pt": digest for part, digest in noted.items()}
        return bool(files) and all(file.is_file() and sha256_of_file(file) == digest for file, digest in files.items())
    except OSError:
        return False


def load(path: Path, part: str, device: torch.device) -> State:
    """One part of a run's checkpoint.

    Raises:
        UserError: it is damaged or missing, or does not hold what such a part does.
    """
    state = read(path, part, device)
    _require_kept(state, part, path / f"{part}.pt")
    return state


def read(path: Path, part: str, device: torch.device) -> State:
    """One part of a checkpoint, whatever is in it.

    Raises:
        UserError: it is damaged or missing.
    """
    if not is_whole(path):
        raise UserError(
            f"the checkpoint {path} is damaged (its checksum does not match); choose another with --checkpoint"
        )
    try:
        # Mapped, not read: what is copied to its place (a replay buffer in a file) need not fit the memory a second time.
        mapped = torch.device(device).type == "cpu"
        state: State = torch.load(path / f"{part}.pt", map_location=device, weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"the checkpoint file {path / f'{part}.pt'} cannot be read: {error}") from error
    return state


def _require_kept(state: Any, part: str, file: Path) -> None:
    """Raises UserError where a part lacks what every version has kept in it, or has it in another type."""
    if not isinstance(state, dict):
        raise UserError(f"{file} holds no checkpoint of dqnlm; choose another with --checkpoint")
    for key, kinds in _KEPT[part].items():
        if key not in state or not isinstance(state[key], kinds):
            raise UserError(f"{file} is no checkpoint of dqnlm, or damaged ({key}); choose another with --checkpoint")


@contextmanager
def must_fit(run: Path) -> Iterator[None]:
    """Around putting a checkpoint into freshly built parts.

    Raises:
        UserError: the shapes or names differ.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise UserError(
            f"the checkpoint does not fit {run / 'config.yaml'} ({said[-1].strip()}); it was copied from "
            "another run, or the settings were changed by hand: put back what belongs together"
        ) from error


def newest_whole(folder: Path) -> tuple[Path, list[Path]]:
    """The newest checkpoint that is not damaged, and the newer ones that are.

    Raises:
        UserError: there is none.
    """
    _put_back(folder)
    damaged: list[Path] = []
    for path in reversed(step_folders(folder)):
        if is_whole(path):
            return path, damaged
        damaged.append(path)
    raise UserError(
        f"{folder} holds no checkpoint to resume from"
        + (f" ({len(damaged)} are damaged)" if damaged else "; the run stopped before its first was written")
        + ". Start again with dqnlm train."
    )
