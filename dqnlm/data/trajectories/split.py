"""Splits a log into training and held-out rows by whole prompts, so that no prompt is in both parts.

The choice depends on the texts alone (a hash gives the order), not on the run's seed: all seeds are evaluated alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Literal

from dqnlm.data.parts import first_of_test
from dqnlm.data.trajectories.records import Trajectory
from dqnlm.errors import UserError

HeldoutBy = Literal["prompt", "row"]


def split(
    items: Sequence[Trajectory], fraction: float, by: HeldoutBy, whole: str
) -> tuple[list[Trajectory], list[Trajectory], str]:
    """Returns the training part, the held-out part (in the old order, neither empty), and a note with the numbers.

    Args:
        items: at least one.
        fraction: of the rows, in (0, 1), that is held out; a group of rows that belong together goes to one side.
        by: rows of one prompt belong together (`prompt`), or equal rows alone (`row`); rows of one episode always do.
        whole: name of the log in messages.

    Raises:
        UserError: a fraction out of range, or rows that all belong together.
    """
    if not 0 < fraction < 1:
        raise UserError(f"data.heldout_fraction is a share of the rows, above 0 and below 1, not {fraction}")
    groups = sorted(_groups(items, by), key=lambda places: _order(items[places[0]], by))
    if len(groups) < 2:
        raise UserError(_nothing_left(items, by, whole))
    wanted, held = max(1, round(fraction * len(items))), set[int]()
    for places in groups:
        if len(held) + len(places) <= min(wanted, len(items) - 1):
            held.update(places)
    held = held or set(sorted(groups, key=len)[0])
    train = [item for place, item in enumerate(items) if place not in held]
    heldout = [items[place] for place in sorted(held)]
    together = "the same prompt never stands on both sides" if by == "prompt" else "prompts stand on both sides"
    note = (
        f"Held out {len(heldout):,} of {len(items):,} logged rows ({_prompts(heldout):,} of {_prompts(items):,} prompts); "
        f"{together} (data.heldout_fraction={fraction:g}, data.heldout_by={by})."
    )
    return train, heldout, note


def divided(
    heldout: Sequence[Trajectory], test_fraction: float, by: HeldoutBy
) -> tuple[list[Trajectory], list[Trajectory], str]:
    """Returns the validation part, the test part (in the old order), and a note; the units are those of `split`.

    The test part is empty where `test_fraction` is 0, and where all held-out rows belong together.
    """
    first_of_test(len(heldout), test_fraction)  # refuses a fraction out of range
    if not test_fraction:
        return list(heldout), [], "No test part (data.test_fraction=0)."
    groups = sorted(_groups(heldout, by), key=lambda places: _order(heldout[places[0]], by))
    if len(groups) < 2:
        return list(heldout), [], "No test part: all held-out rows belong together, so they are the validation part."
    wanted, chosen = max(1, len(heldout) - first_of_test(len(heldout), test_fraction)), set[int]()
    for places in reversed(groups):
        if len(chosen) + len(places) <= min(wanted, len(heldout) - 1):
            chosen.update(places)
    chosen = chosen or set(sorted(groups, key=len)[0])
    validation = [item for place, item in enumerate(heldout) if place not in chosen]
    test = [heldout[place] for place in sorted(chosen)]
    said = f"Of the held-out rows {len(validation):,} are for validation and {len(test):,} for the test"
    return validation, test, f"{said} (data.test_fraction={test_fraction:g})."


def without(
    items: Sequence[Trajectory], heldout: Sequence[Trajectory], by: HeldoutBy, setting: str = "data.heldout_path"
) -> tuple[list[Trajectory], str | None]:
    """Drops the episodes that share a prompt (or, by row, a row) with `heldout`; returns a note where some did."""
    shared = {next(_links(item, by)) for item in heldout}
    torn = {item.episode for item in items if item.episode >= 0 and next(_links(item, by)) in shared}
    kept = [item for item in items if next(_links(item, by)) not in shared and item.episode not in torn]
    if len(kept) == len(items):
        return kept, None
    what = "their prompts are" if by == "prompt" else "equal rows are"
    return kept, f"{len(items) - len(kept):,} logged rows are left out: {what} held out ({setting})."


def _groups(items: Sequence[Trajectory], by: HeldoutBy) -> list[list[int]]:
    """Groups the indices of rows that are linked by a prompt or an episode, directly or transitively."""
    parent = list(range(len(items)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[Hashable, int] = {}
    for place, item in enumerate(items):
        for key in _links(item, by):
            parent[root(place)] = root(first.setdefault(key, place))
    found: dict[int, list[int]] = {}
    for place in range(len(items)):
        found.setdefault(root(place), []).append(place)
    return list(found.values())


def _links(item: Trajectory, by: HeldoutBy) -> Iterator[Hashable]:
    yield ("prompt", item.prompt) if by == "prompt" else ("row", item.prompt, item.completion)
    if item.episode >= 0:
        yield "episode", item.episode


def _order(item: Trajectory, by: HeldoutBy) -> str:
    text = item.prompt if by == "prompt" else f"{item.prompt}\0{item.completion}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _prompts(items: Sequence[Trajectory]) -> int:
    return len({item.prompt for item in items})


def _nothing_left(items: Sequence[Trajectory], by: HeldoutBy, whole: str) -> str:
    if len(items) == 1:
        return f"{whole} holds a single row, so none can be held out: give more, or data.heldout_path=FILE"
    why = "have the same prompt" if _prompts(items) == 1 else "belong together (by their prompts and episodes)"
    by_row = "data.heldout_by=row (a prompt then stands on both sides) or " if by == "prompt" else ""
    return (
        f"all {len(items):,} rows of {whole} {why}, so no {by} is left to be held out: set {by_row}data.heldout_path=FILE, or "
        "add rows with other prompts"
    )
