"""reference.json: the platform on which it was recorded, and what each run left there.

    scripts/python -m tests.golden.reference            records all runs anew, with the code as it is
    scripts/python -m tests.golden.reference NAME ...    these alone, which the file lacked

A change that should change nothing must pass with the file as it is. Record anew only where a run is to behave otherwise,
and say in the commit why. On another processor, record with the commit before the change, compare, and do not commit it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden import driver, saved
from tests.golden.runs import RUNS, SAVED, Run

HERE = Path(__file__).parent
FILE = HERE / "reference.json"


def load() -> dict[str, Any]:
    """`platform` and `packages`, then `runs` and `saved` by name."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def is_of_this_platform(content: dict[str, Any], run: Run) -> bool:
    """Whether the last bits of this run's figures must be those on record."""
    recorded = content["platform"] | {name: content["packages"].get(name) for name in run.packages}
    return recorded == driver.platform(run.packages)


def measure(run: Run, place: Path) -> dict[str, Any]:
    """What a whole run leaves."""
    driver.prepare(run, place)
    with driver.without_data_folder():
        return driver.record(driver.train(run, place))


def dumps(content: dict[str, Any]) -> str:
    """JSON in which each line of a run stands on a line of its own, so that a change of the file can be read."""

    def write(value: Any, depth: int) -> str:
        if depth == 0 or not isinstance(value, (dict, list)) or not value:
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, list):
            return "[\n" + ",\n".join(write(item, depth - 1) for item in value) + "\n]"
        rows = (f"{json.dumps(key)}: {write(item, depth - 1)}" for key, item in value.items())
        return "{\n" + ",\n".join(rows) + "\n}"

    return write(content, 4) + "\n"


def main(names: list[str]) -> None:
    """Records the named runs, or all."""
    content = load() if names else {"runs": {}, "saved": {}}
    packages = tuple(sorted({name for run in RUNS for name in run.packages}))
    versions = driver.platform(packages)
    content["packages"] = {name: versions.pop(name) for name in packages}
    content["platform"] = versions
    with tempfile.TemporaryDirectory() as folder:
        for run in RUNS:
            if run.reference is None and (not names or run.name in names):
                content["runs"][run.name] = measure(run, Path(folder) / run.name)
        for run in SAVED:
            if not names or run.name in names:
                place = Path(folder) / "saved" / run.name
                saved.unpack(run, place)
                content["saved"][run.name] = saved.finish(run, place)
    FILE.write_text(dumps(content), encoding="utf-8")
    print(f"wrote {FILE}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
