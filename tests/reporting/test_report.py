"""`dqnlm report`: what it reads, how it compares, and that the page is safe and self-contained."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqnlm.commands.report import main
from dqnlm.errors import UserError
from dqnlm.reporting.compare import differing, group_runs, main_figure, telling, warnings
from dqnlm.reporting.curves import chart_svg, summarise, thin
from dqnlm.reporting.loading import RunData, load_run, read_lines, read_tail
from tests.helpers.reports import FINISHED, make_run, point, rising

VOID = {"meta", "input", "br", "line"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and gathers ids, links and text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def load(path: Path) -> RunData:
    return load_run(path, path.name)


def test_differing_settings_leave_out_the_seed(tmp_path: Path) -> None:
    """Guards a comparison whose columns are drowned by equal settings, or that takes seeds for settings."""
    a = load(make_run(tmp_path / "a", {"seed": 0}))
    b = load(make_run(tmp_path / "b", {"seed": 1, "gamma": 0.9}))
    assert differing([a, b]) == ["gamma"]


def test_chosen_option_implies_what_is_below_it(tmp_path: Path) -> None:
    """Guards a table with a column for each key of two different networks, and a label that tells nothing apart."""
    gru = {"network": {"_target_": "dqnlm.networks.recurrent.GRU", "units": 64}}
    a = load(make_run(tmp_path / "a"))
    b = load(make_run(tmp_path / "b", gru, choices={"network": "gru"}))
    keys = differing([a, b])
    assert set(keys) == {"network", "network._target_", "network.units", "network.layers", "network.width"}
    assert telling(keys, [a, b]) == ["network"]
    # A third run has the first one's option with another width: the option alone no longer tells.
    c = load(make_run(tmp_path / "c", {"network.width": 64}))
    assert "network.width" in telling(differing([a, b, c]), [a, b, c])
    assert len({group.label for group in group_runs([a, b, c])}) == 3


def test_seeds_are_grouped(tmp_path: Path) -> None:
    """Guards seeds drawn as if they were different experiments."""
    runs = [load(make_run(tmp_path / f"{gamma}-{seed}", {"seed": seed, "gamma": gamma}))
            for gamma in (0.5, 0.9) for seed in (0, 1, 2)]  # fmt: skip
    groups = group_runs(runs)
    assert [group.label for group in groups] == ["gamma=0.5", "gamma=0.9"]
    assert [len(group.runs) for group in groups] == [3, 3]


def test_mean_and_band_where_all_seeds_have_values() -> None:
    """Guards a mean that jumps where one seed ends. By hand: the second seed is 3 at 1."""
    first = (np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0]))
    second = (np.array([0.0, 2.0]), np.array([2.0, 4.0]))
    line = summarise([first, second])
    assert line is not None
    np.testing.assert_allclose(line.x, [0, 1, 2])
    np.testing.assert_allclose(line.mean, [1, 2, 3])
    np.testing.assert_allclose(line.low, [0, 1, 2])
    np.testing.assert_allclose(line.high, [2, 3, 4])
    [(x, y)] = line.tails
    np.testing.assert_allclose((x, y), ([2, 3], [2, 3]))


def test_thinning_keeps_ends_and_mean() -> None:
    """Guards a curve that loses its last point, or averages with wrong bucket sizes (a line must stay a line)."""
    x = np.arange(1003, dtype=float)
    thin_x, thin_y = thin(x, 2 * x + 1, 100)
    assert len(thin_x) == 100 and thin_x[0] == 0 and thin_x[-1] == 1002
    np.testing.assert_allclose(thin_y, 2 * thin_x + 1)


def test_best_follows_the_direction_of_the_figure(tmp_path: Path) -> None:
    """Guards `best` nats that are the worst, and a NaN that wins every comparison."""
    points = [point(1, eval_nll=2.0, eval_accuracy=0.3), point(2, eval_nll=1.5, eval_accuracy=0.2)]
    points.append(point(3, eval_nll=float("nan"), eval_accuracy=float("nan")))
    run = load(make_run(tmp_path / "a", points=points))
    assert run.best("eval/nll") == (2.0, 1.5)
    assert run.best("eval/accuracy") == (1.0, 0.3)
    assert run.odd_values() == {"eval/nll": 1, "eval/accuracy": 1}


def test_line_cut_off_by_a_crash_is_tolerated_and_said(tmp_path: Path) -> None:
    """Guards a report that a kill in the middle of a write makes impossible, cut inside a UTF-8 character too."""
    run = make_run(tmp_path / "a", samples=[{"step": 1, "kind": "k", "prompt": "p", "text": "t"}])
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 500, "loss/t')
    with (run / "samples.jsonl").open("ab") as stream:
        stream.write('{"text": "é'.encode()[:-1])
    data = load(run)
    assert data.last("step") == 400 and len(data.samples) == 1
    assert sum("cut off" in note for note in data.notes) == 2
    assert any("metrics.jsonl was cut off" in message for message in warnings([data]))


@pytest.mark.parametrize("damage", ['{"step": 5', "[1, 2]", "\x00\x00"])
def test_damage_inside_names_file_and_line(tmp_path: Path, damage: str) -> None:
    """Guards damage in the middle of a file that is passed over in silence."""
    run = make_run(tmp_path / "a")
    whole = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*whole[:2], damage, *whole[2:]]) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 3:"):
        load(run)


def test_missing_and_damaged_settings(tmp_path: Path) -> None:
    """Guards a traceback from a run folder that is not whole."""
    run = make_run(tmp_path / "a")
    (run / "config.yaml").write_text("a: [1, 2\nb: 3\n")
    with pytest.raises(UserError, match=r"config\.yaml is damaged: .*line 2"):
        load(run)
    (run / "config.yaml").write_text("seed: 0\ngamma: 0.5\n")  # cut between two settings: still YAML
    with pytest.raises(UserError, match=r"config\.yaml: is not whole: it does not name feedback, .*trainer"):
        load(run)
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config\.yaml is missing"):
        load(run)


@pytest.mark.parametrize("read", [read_lines, read_tail])
def test_a_folder_in_the_place_of_metrics(read: Any, tmp_path: Path) -> None:
    """Bug: a traceback of `dqnlm runs`, which reads the tail alone, where a report has a message."""
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read: Is a directory"):
        read(tmp_path / "metrics.jsonl", [])


@pytest.mark.parametrize("tail_bytes", range(1, 60))
def test_tail_is_the_end_of_the_whole(tmp_path: Path, tail_bytes: int) -> None:
    """Guards a tail that begins inside a line, or drops a line because the cut falls on a line break."""
    whole = [{"a": 1}, {"b": "two"}, {"c": 3.5}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in whole))
    sizes = [len(json.dumps(record)) + 1 for record in whole]
    fitting = sum(sum(sizes[start:]) <= tail_bytes for start in range(3))
    assert read_tail(path, [], tail_bytes) == whole[3 - fitting :]


def test_warnings_before_comparing(tmp_path: Path) -> None:
    """Guards figures of two texts, or of an unfinished run, that are compared without a word."""
    a = load(make_run(tmp_path / "a", summary=FINISHED))
    b = load(make_run(tmp_path / "b", {"data.tokenizer": "byte"}, sha256="cd" * 32, summary=FINISHED))
    c = load(make_run(tmp_path / "c", summary={"status": "interrupted"}))
    assert warnings([a]) == []
    text = "\n".join(warnings([a, b, c]))
    assert "different data" in text and "sha256 cdcdcdcdcdcd: b" in text
    assert "data.tokenizer differs (byte, character)" in text
    assert "c is not finished: interrupted, 400 updates so far" in text


def test_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    """Guards generated text that becomes markup, resources from elsewhere, and ids that two charts share."""
    evil = '<script>alert(1)</script> & "quotes" $x^2$ <img src=x>'
    samples = [{"step": step, "kind": evil, "prompt": evil, "text": f"{evil} {step}"} for step in (0, 100, 200, 400)]
    points = [{**entry, "eval/<b>odd": 1.0, "loss/$\\frac": 2.0} for entry in rising()]
    changes = {"gamma": evil, "seed": 1}
    a = make_run(tmp_path / "a", changes, samples=samples, points=points, summary=FINISHED)
    b = make_run(tmp_path / "b", summary=FINISHED)
    assert main([str(a), str(b), "--output", str(tmp_path / "page.html")]) == 0
    content = (tmp_path / "page.html").read_text()
    page = Page(content)
    assert "<script" not in content and "<img" not in content and "<b>odd" not in content
    assert evil in page.text
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"@import|url\((?!#)", content)
    # First, middle (the third of four) and last evaluation; not the second.
    assert [f"{evil} {step}" in page.text for step in (0, 100, 200, 400)] == [True, False, True, True]


def test_charts_of_each_axis_and_of_the_figure_asked_for(tmp_path: Path) -> None:
    """Guards an axis without charts, and SVG that keeps fixed ink, unreadable on a dark page."""
    run = load(make_run(tmp_path / "a", summary=FINISHED))
    for axis, label in (("step", "updates"), ("transitions", "transitions trained on"), ("wall_s", "wall time (s)")):
        svg = chart_svg(group_runs([run]), "loss/td", axis, "x")
        assert label in svg and "var(--c0)" in svg and "currentColor" in svg
        assert "#010203" not in svg and "<?xml" not in svg and "<metadata" not in svg


def test_terminal_table_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards a piped table that is cut at 80 columns, a PNG that is not one, and a page in the wrong place."""
    a = make_run(tmp_path / "2026-01-01" / "10-00-00-" / "a", {"gamma": 0.25}, summary=FINISHED)
    b = make_run(tmp_path / "2026-01-01" / "10-00-00-" / "b", points=rising(0.3), summary=FINISHED)
    picture = tmp_path / "curve.png"
    main([str(a), str(b), str(a), "--output-dir", str(tmp_path), "--png", str(picture)])
    output = capsys.readouterr().out
    header, first, second, *_ = [line for line in output.splitlines() if line.strip()]
    assert "gamma" in header and "nll best" in header
    assert first.split()[:3] == ["2026-01-01/10-00-00-/a", "0.25", "0.4000"] and "finished" in first.split()
    assert "0.3000" in second.split()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report.html").exists()
    main([str(a), "--output-dir", str(tmp_path)])
    assert (a / "report.html").exists()


def test_runs_elsewhere_need_no_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a comparison of runs that were copied here, refused because there is no folder `outputs`."""
    runs = [make_run(tmp_path / "copied" / day / "a", points=rising(0.3)) for day in ("one", "two")]
    monkeypatch.chdir(tmp_path)
    assert main([str(run) for run in runs]) == 0
    assert (tmp_path / "copied" / "report.html").exists() and not (tmp_path / "outputs").exists()


def test_unknown_figure_and_places(tmp_path: Path) -> None:
    """Guards an empty chart for a mistyped figure, and a page lost because its folder is not there."""
    run = make_run(tmp_path / "a")
    with pytest.raises(UserError, match=r"Did you mean eval/accuracy\?"):
        main([str(run), "--metric", "eval/acuracy"])
    with pytest.raises(UserError, match="there is no folder"):
        main([str(run), "--output", str(tmp_path / "none" / "page.html")])
    with pytest.raises(UserError, match="is a folder"):
        main([str(run), "--output", str(tmp_path)])
    empty = make_run(tmp_path / "empty", points=[])
    with pytest.raises(UserError, match="logged nothing"):
        main([str(empty)])


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a traceback where the extra is not installed."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'dqnlm\[report\]'"):
        main([str(make_run(tmp_path / "a"))])


def test_the_first_figure_is_one_that_there_is(tmp_path: Path) -> None:
    """Bug: a report of runs without a text is refused for lack of eval/accuracy."""
    points = {
        "text": {"eval/accuracy": 0.3, "eval/return": 1.0},
        "game": {"eval/return": 2.0},
        "neither": {"loss/td": 1.0},
    }
    runs = {
        name: load_run(make_run(tmp_path / name, points=[{"step": 1, "transitions": 1, "wall_s": 1.0} | figures]), name)
        for name, figures in points.items()
    }
    assert main_figure([runs["text"], runs["game"]]) == "eval/accuracy"
    assert main_figure([runs["game"], runs["neither"]]) == "eval/return"
    assert main_figure([runs["neither"]]) == "loss/td"  # before the first evaluation


def test_a_report_before_the_first_evaluation(tmp_path: Path) -> None:
    """Bug: `dqnlm report` of a run without an evaluation says that --metric is wrong, which nobody gave."""
    lines = [{"step": 1, "time/x": 2.0, "loss/td": 0.5}, {"step": 2, "time/x": 2.0, "loss/td": 0.4}]
    run = make_run(tmp_path / "a", {"seed": 0}, points=lines)
    assert main_figure([load(run)]) == "loss/td"
    assert main([str(run)]) == 0 and (run / "report.html").is_file()
