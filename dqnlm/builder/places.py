"""Where the files of a run lie now: named anew on the command line, looked for, and compared with what the run notes of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dqnlm.config import paths
from dqnlm.config.paths import READ, Place, places
from dqnlm.config.run_config import load_run_config, typed_keys
from dqnlm.config.schema import TARGET, resolve_target
from dqnlm.errors import UserError
from dqnlm.networks.base import Body
from dqnlm.runs.directory import RunDirectory
from dqnlm.runs.reading import manifest_of, object_at
from dqnlm.tasks.base import Task
from dqnlm.utils.paths import CodePath, PathOrName

Config = dict[str, Any]
KEPT = ("data.tokenizer",)  # what a checkpoint holds
_SHORT = 12  # characters of a checksum that a message shows


def config_of(run: RunDirectory, overrides: Sequence[str]) -> tuple[Config, Config]:
    """The configuration of a run as it is saved, and with overrides; places among them are absolute, and their code permitted.

    Where the pretrained model is named anew, so is the tokenizer that was read from its folder.

    Raises:
        UserError: as `load_run_config`.
    """
    config = load_run_config(run.config, overrides)  # first: the overrides may renew a permission to run the user's code
    before, typed = load_run_config(run.config), typed_keys(overrides)
    config = paths.anchored(config, Path.cwd(), only=typed)
    paths.permit_code(config, only=typed)
    model, tokenizer = "network.name_or_path", "data.tokenizer"
    old = places(before)
    if model in typed and tokenizer not in typed and tokenizer in old and old[tokenizer].value == old[model].value:
        config = paths.with_values(config, {tokenizer: places(config)[model].value})
    return before, config


def config_elsewhere(run: RunDirectory, overrides: Sequence[str], allow_targets: Sequence[str] = ()) -> Config:
    """The configuration of a run of which nothing but places is changed.

    Raises:
        UserError: an override is of another setting.
    """
    allowed = [f"allow_targets=[{','.join(allow_targets)}]"] if allow_targets else []
    before, config = config_of(run, [*allowed, *overrides])
    moved = paths.moved(before, config)
    there = places(before)
    for key in typed_keys(overrides):
        if key not in moved and (key not in there or there[key].value != places(config)[key].value):
            names = ", ".join(key for key, place in there.items() if place.file is not None and _of(READ, key))
            raise UserError(
                f"{key} is no place of a file, and nothing else of a run that exists can be changed here\n"
                f"  places of this run: {names or 'none'}"
            )
    return config


def require_there(run: RunDirectory, config: Config, command: Callable[[str], str], groups: Sequence[str] = READ) -> None:
    """Raises UserError that names all files of a run at once that are not where they were, and how their places are typed.

    Args:
        config: of the run, with the places named on the command line.
        command: settings -> the command to type with them.
        groups: of which settings the files are read.
    """
    network = config["network"]
    needed_by = getattr(resolve_target(network[TARGET]), "files_needed", lambda node: ())  # a function has no such method
    needed = [f"network.{name}" for name in needed_by(network)]
    read = {key: p for key, p in places(config).items() if (_of(groups, key) and key not in KEPT) or key in needed}
    gone = {key: place for key, place in read.items() if _is_gone(place)}
    if not gone:
        return
    noted = {**object_at(manifest_of(run), "places")}
    noted |= {"data.path": object_at(manifest_of(run), "data").get("sha256")}
    lines, words = [], []
    for key, place in gone.items():
        checksum = f" (sha256 {str(noted[key])[:_SHORT]}...)" if noted.get(key) else ""
        found = _beside_the_run(run, config, place)
        lines.append(f"  {key}: {place.file}{checksum}" + ("" if found is None else f", but {found} is there"))
        new = "PATH" if found is None else str(found)
        words.append(f"{key}={new}" + (f":{place.value.rpartition(':')[2]}" if place.kind is CodePath else ""))
    what = "a file is not where it was" if len(gone) == 1 else f"{len(gone)} files are not where they were"
    raise UserError(
        f"{run.path}: {what} when the run began\n" + "\n".join(lines) + "\n  "
        "name where each lies now; its content is compared with what the run notes: " + command(shlex.join(words))
    )


def contents(task: Task, body: Body) -> dict[str, str]:
    """Setting that names a file or folder -> sha256 of what it holds, for the manifest; the data has its fingerprint."""
    return task.contents() | {f"network.{name}": checksum for name, checksum in body.contents().items()}


def require_same(run: RunDirectory, task: Task, before: Config, config: Config) -> None:
    """Raises UserError where a file named anew, or what a part found by itself, is another than when the run began.

    Own code that has changed in its place is not refused here: it may have been mended, and a resume warns of it.
    """
    noted = _noted(run, before)
    moved = paths.moved(before, config)
    now, there = task.contents(), places(config)
    for key, place in moved.items():
        if key in now and noted.get(key) is None:
            raise UserError(
                f"{key}={place.value}: the run does not note what its file held ({run.manifest.name} is damaged or of an earlier "
                f"version), so that another place cannot be compared with it; put the file back: {places(before)[key].value}"
            )
    for key, checksum in now.items():
        was, place = noted.get(key), there.get(key, Place(None, None))
        if was in (None, checksum) or (place.kind is CodePath and key not in moved):
            continue
        raise UserError(
            f"{key}={place.value} is not what this run was made with: its sha256 is {checksum[:_SHORT]}..., then "
            f"{str(was)[:_SHORT]}...\n  name where the same file lies now with {key}=PATH, or start a new run from the weights: "
            "dqnlm train ... pretraining.init_from=RUN"
        )


def _noted(run: RunDirectory, before: Config) -> dict[str, Any]:
    """Checksums when the run began, by setting; of a run of an earlier version those of its own code."""
    manifest = manifest_of(run)
    code = object_at(manifest, "own_code")
    files = {key: str(place.file) for key, place in places(before).items() if place.kind is CodePath}
    return {key: code[file] for key, file in files.items() if file in code} | object_at(manifest, "places")


def _is_gone(place: Place) -> bool:
    if place.file is None or (place.kind is PathOrName and not place.file.is_absolute()):
        return False
    return not place.file.exists()


def _of(groups: Sequence[str], key: str) -> bool:
    return key.split(".")[0] in groups


def _beside_the_run(run: RunDirectory, config: Config, place: Place) -> Path | None:
    """Where the file would be if a folder that holds both it and the runs was moved as a whole; None if it is not there."""
    old = Path(config["output_dir"])
    for parent in run.path.absolute().parents:
        if parent.name == old.name and place.file is not None:
            found = Path(os.path.normpath(parent.parent / os.path.relpath(place.file, old.parent)))
            return found if found.exists() else None
    return None
