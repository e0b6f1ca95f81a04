"""What is said where the data that is found is not what a run was trained on."""

from __future__ import annotations

from typing import Any

from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from dqnlm.runs.reading import manifest_of, object_at

_SHORT = 12  # characters of a checksum


def other_data(run: RunDirectory, source: Any, found: str, expected: str, way_out: str) -> UserError:
    """The error for data with another fingerprint than a run's.

    Args:
        run: which notes the data that it was trained on.
        source: origin of the data that is found.
        found, expected: fingerprints, hex.
        way_out: what else may be done.
    """
    was = object_at(manifest_of(run), "data").get("sha256")
    if was == source.sha256:
        why = "its content is the same, so it is read with another tokenizer, or divided otherwise"
    elif was is None:
        why = "the run does not note the sha256 of its content"
    else:
        why = f"sha256 of its content {source.sha256[:_SHORT]}..., then {str(was)[:_SHORT]}..."
    return UserError(
        f"the data is not what this run was trained on: {source.origin} has the fingerprint {found[:_SHORT]}..., and the run "
        f"{expected[:_SHORT]}... ({why})\n  put it back, or name where it lies now (data.path=FILE, or the setting that named "
        f"it); {way_out}"
    )
