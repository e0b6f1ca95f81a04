"""scripts/faults.py: the lists of faults fit the code, and the script tells what is noticed from what is not."""

from __future__ import annotations

import pytest

from scripts import faults

ALL = faults.all_faults()
SOURCE = "def f(x):\n    y = x + 1\n    return y\n\n\ndef g(x):\n    return x\n"


def fault(old: list[str], new: list[str]) -> faults.Fault:
    return faults.Fault("area", "area.txt:1", "a fault", "a.py", ["tests/test_types.py"], old, new)


@pytest.mark.parametrize("area", sorted({fault.area for fault in ALL}))
def test_every_fault_still_applies(area: str) -> None:
    """Bug: code or a test was changed or renamed, and a fault in tests/faults is not tried any more."""
    stale = [f"{fault.place}: {why}" for fault in ALL if fault.area == area and (why := fault.stale())]
    assert not stale, "\n".join(stale)


def test_there_are_enough_of_them_and_none_twice() -> None:
    """Bug: a list is not read, or an entry copied and not changed."""
    assert len([fault for fault in ALL if not fault.equivalent]) >= 200
    changes = [(fault.path, tuple(fault.old), tuple(fault.new)) for fault in ALL]
    assert len(set(changes)) == len(changes)


def test_lines_are_replaced_with_their_blanks() -> None:
    """Bug: the new lines stand in the wrong column, or other lines move."""
    changed = fault(["return y"], ["if y:", "    return y", "return 0"]).apply(SOURCE)
    assert changed == SOURCE.replace("    return y\n", "    if y:\n        return y\n    return 0\n")
    assert fault(["y = x + 1", "return y"], ["return x"]).apply(SOURCE).startswith("def f(x):\n    return x\n\n")


@pytest.mark.parametrize(("old", "new"), [(["x"], ["y"]), (["return x"], ["return ("]), (["return x", "return y"], ["pass"])])
def test_faults_that_do_not_apply_are_refused(old: list[str], new: list[str]) -> None:
    """Bug: a fault whose lines are not there, or whose result is no Python, counts as noticed by the tests."""
    with pytest.raises(ValueError, match=r"a\.py"):
        fault(old, new).apply(SOURCE)


def test_lines_that_occur_twice_are_refused() -> None:
    """Bug: the first of two places is changed, which need not be the one that the list means."""
    with pytest.raises(ValueError, match="2 times"):
        fault(["return x"], ["pass"]).apply(SOURCE + "\n\ndef h(x):\n    return x\n")


def test_forms_of_a_list() -> None:
    """Bug: a misspelt entry is left out silently."""
    text = "# a title\n@ a.py : tests/a.py tests/b.py::test_b\n- old\n-   older\n+ new\n= because\n"
    (found,) = faults.read(text, "ops")
    assert (found.title, found.path, found.tests) == ("a title", "a.py", ["tests/a.py", "tests/b.py::test_b"])
    assert (found.old, found.new, found.equivalent) == (["old", "  older"], ["new"], "because")
    for wrong in ("* x", "# t\n@ a.py : \n- a", "# t\n@ a.py : b.py\n+ a", "@ a.py : b.py\n- a"):
        with pytest.raises(ValueError, match=r"ops\.txt:\d"):
            faults.read(wrong, "ops")


def test_scores_leave_out_equivalent_faults() -> None:
    """Bug: a fault that nothing can notice counts as killed, or as survived."""
    one, two = fault(["a"], []), fault(["b"], [])
    two.equivalent = "the same"
    rows = faults.table([(one, "killed"), (one, "survived"), (one, "stale"), (one, "killed"), (two, "survived")]).splitlines()
    assert rows[2] == "| area | 4 | 2 | 1 | 1 | 1 | 50.0 |" and rows[-1].startswith("| all | 4 |")


THREE = """
# noticed
@ dqnlm/ops/returns.py : tests/test_types.py tests/ops/test_returns.py::test_n_step_and_lambda_by_hand
- walk = one.power(_enough(times) if n is None or n >= times else n)
+ walk = one

# not noticed
@ dqnlm/ops/returns.py : tests/test_types.py tests/ops/test_returns.py::test_n_step_and_lambda_by_hand
- times = reward_BT.shape[1]
+ times = discount_BT.shape[1]

# does not apply
@ dqnlm/ops/returns.py : tests/test_types.py
- not there
"""


@pytest.mark.slow
def test_a_fault_is_noticed_and_a_harmless_change_is_not() -> None:
    """Bug: the copy is not the code that is tested, or is not restored; all faults then count the same."""
    results = faults.run(faults.read(THREE, "three"), 1, 60.0, True)
    assert [verdict for _, verdict in results] == ["killed", "survived", "stale"]
