"""How often the test part of a run was looked at: a figure that was looked at often has chosen something."""

from __future__ import annotations

import json

from dqnlm.data.parts import Part
from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from dqnlm.utils.files import require_regular, write_text_atomic
from dqnlm.utils.parsing import json_value


def count_look(run: RunDirectory) -> int:
    """Counts one more look at the test part in the run's folder; returns how many there were, with this one.

    Raises:
        UserError: the count there is not a number, or cannot be written: a look that is not counted is not made.
    """
    file, other = run.test_looks, "`--part validation` scores the other held-out part and counts nothing"
    require_regular(file)
    try:
        looks = json_value(file.read_text())["looks"] if file.exists() else 0
        if not isinstance(looks, int) or isinstance(looks, bool) or looks < 0:
            raise ValueError(looks)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f'{file} should hold the number of looks at the test part, such as {{"looks": 1}}, and does not: put it right, '
            f"or remove it to count anew; {other}"
        ) from error
    try:
        write_text_atomic(file, json.dumps({"looks": looks + 1}) + "\n")
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}), so this look at the test part cannot be counted: copy the run's "
            f"folder to where it can; {other}"
        ) from error
    return looks + 1


def part_in_words(part: Part, looks: int | None) -> str:
    """A part, and for the test part how often it was looked at."""
    if looks is None:
        return f"{part} part" + (" (it chose the best checkpoint)" if part == "validation" else "")
    return f"test part (looked at {looks} time{'s' if looks > 1 else ''} in this run's folder)"
