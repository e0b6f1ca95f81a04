"""`dqnlm inspect`: the figures against a loop over positions, and a page that shows just these, safely."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm import cli, load_policy
from dqnlm.agent.policy import Kind, Policy
from dqnlm.data.tokenizers.base import ByteTokenizer, CharacterTokenizer
from dqnlm.errors import UserError
from dqnlm.evaluation.inspection import action_values, inspect_text
from dqnlm.heads.base import Head
from dqnlm.heads.categorical import Categorical
from dqnlm.heads.quantile import Quantile
from dqnlm.heads.scalar import Scalar
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear
from dqnlm.reporting import inspection_style
from dqnlm.reporting.compare import ABSENT
from dqnlm.reporting.inspection_page import (
    Heading,
    build_page,
    colour_levels,
    page_data,
    summary,
    token_name,
    visible,
)
from dqnlm.types import Bounds
from tests.helpers import networks as cases
from tests.helpers import runs as tools
from tests.helpers.tasks import task_spec

LETTERS = "\n abcdefg"  # nine, and the unknown token is the tenth
SIZE = len(LETTERS) + 1
TEXT = "bag a cab\nbed dad egg fad " * 3
HEADS: dict[str, Callable[[], Head]] = {
    "scalar": lambda: Scalar(Bounds(0.0, 2.0), False, loss="squared", initial_return=None),
    "categorical": lambda: Categorical(Bounds(0.0, 2.0), low=None, high=None, num_atoms=7, temperature=None),
    "quantile": lambda: Quantile(Bounds(0.0, 2.0), num_quantiles=5, kappa=1.0),
}


def make_policy(
    body: str = "transformer",
    head: str = "scalar",
    declared: Kind = "boltzmann",
    outputs: tuple[str, ...] = (),
    temperature: float = 0.3,
    allowed: str = LETTERS,
) -> Policy:
    """An untrained policy with weights large enough that its figures differ from token to token."""
    torch.manual_seed(0)
    made, meaning = cases.BODIES[body](), HEADS[head]()
    sizes = {"q": SIZE, "q2": SIZE, "v": 1, "policy": SIZE}
    named = {name: Linear(made.features, sizes[name], meaning.num_parameters if name in ("q", "q2") else 1)
             for name in ("q", *outputs)}  # fmt: skip
    network = QNetwork(TokenEncoder(SIZE, made.width, 1.0), made, named)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    tokenizer = CharacterTokenizer(LETTERS)
    legal_A = torch.zeros(SIZE, dtype=torch.bool)
    legal_A[tokenizer.encode(allowed).long()] = True
    return Policy(network, meaning, tokenizer, legal_A, declared, temperature, 7, 2.0, task_spec(SIZE), outputs)


def raw_at(policy: Policy, ids: list[int], position: int) -> dict[str, Tensor]:
    """Naive oracle: raw outputs after token `position`, from what the network may read there, one position a pass."""
    network = policy.network
    slides = network.left_context > 0  # then it reads what its reach covers, else all of its window
    begin = max(position - network.left_context, 0) if slides else position // network.context * network.context
    output = network(torch.tensor([ids[begin : position + 1]]))
    return {name: raw[0, -1] for name, raw in output.items()}


@pytest.mark.parametrize(
    ("body", "head", "declared", "outputs"),
    [
        ("transformer", "scalar", "boltzmann", ()),
        ("gru", "scalar", "boltzmann", ("v",)),
        ("window_mlp", "scalar", "boltzmann", ()),
        ("transformer", "scalar", "reweighted", ("policy", "q2", "v")),
        ("transformer", "categorical", "boltzmann", ()),
        ("gru", "quantile", "boltzmann", ()),
    ],
)
@torch.no_grad()
def test_figures_against_a_loop_over_positions(body: str, head: str, declared: Kind, outputs: tuple[str, ...]) -> None:
    """Bug: a position is left out or scored twice, windows begin elsewhere, a figure is of another token or position."""
    policy = make_policy(body, head, declared, outputs)
    found = inspect_text(policy, TEXT)
    ids = policy.tokenizer.encode(TEXT).tolist()
    assert found.ids == ids and len(found.q_X) == len(ids) - 1 == 77 and found.num_actions == SIZE - 1
    for x in range(len(ids) - 1):
        raw, taken = raw_at(policy, ids, x), ids[x + 1]
        q = policy.head.value(raw["q"])
        if "q2" in raw:
            q = torch.minimum(q, policy.head.value(raw["q2"]))
        q = q.tolist()[:-1]  # without the unknown token
        order = sorted(range(len(q)), key=lambda a: -q[a])
        value = float(raw["v"]) if "v" in raw else q[order[0]]
        logits = torch.tensor(q) / 0.3
        if declared == "reweighted":
            logits = raw["policy"][:, 0].log_softmax(-1)[:-1] + 2.0 * torch.tensor(q)
        log = logits.log_softmax(-1).tolist()
        near = lambda wanted: pytest.approx(wanted, abs=1e-4)  # noqa: E731
        assert float(found.q_X[x]) == near(q[taken]) and float(found.value_X[x]) == near(value)
        assert float(found.advantage_X[x]) == near(q[taken] - value)
        assert float(found.gap_X[x]) == near(q[order[0]] - q[order[1]])
        assert found.best_XK[x].tolist() == order[:5] and found.best_q_XK[x].tolist() == near([q[a] for a in order[:5]])
        assert int(found.rank_X[x]) == order.index(taken) + 1 and bool(found.hit_X[x]) == (order[0] == taken)
        assert bool(found.chosen_X[x]) == (int(logits.argmax()) == taken)
        assert found.log_probability_X is not None and found.best_log_XK is not None
        assert float(found.log_probability_X[x]) == near(log[taken])
        assert found.best_log_XK[x].tolist() == near([log[a] for a in order[:5]])
        if head != "scalar":
            assert found.atoms_XM is not None and found.weight_XM is not None
            assert float((found.atoms_XM[x] * found.weight_XM[x]).sum()) == near(q[taken])
            assert float(found.weight_XM[x].sum()) == near(1.0)
    assert (found.atoms_XM is None) == (head == "scalar")
    context = policy.network.context
    assert found.starts == ([0] if body == "window_mlp" else list(range(0, len(ids) - 1, context)))


def test_tokens_that_may_not_be_chosen() -> None:
    """Bug: an illegal token is the best, gets a rank or a Q, or makes means of the others infinite."""
    policy = make_policy(allowed="abc")
    found = inspect_text(policy, "abdc")
    assert found.rank_X.tolist()[1] == 0 and bool(found.q_X[1].isnan()) and bool(found.advantage_X[1].isnan())
    assert found.num_actions == 3 and not bool(found.hit_X[1])
    data = page_data(found)
    assert data["figures"]["q"]["values"][1] is None and data["figures"]["log"]["values"][1] is None
    assert data["best_q"][0][3:] == [None, None] and None not in data["best_q"][0][:3]
    tiles = dict(summary(found))
    assert tiles["tokens that the run may not choose"] == "1" and tiles["tokens scored"] == "3"
    assert float(tiles["mean Q of the taken tokens"]) == pytest.approx(float(found.q_X[[0, 2]].mean()), abs=1e-3)
    alone = inspect_text(make_policy(allowed="a"), "aaa")
    assert bool(alone.gap_X.isnan().all()) and dict(summary(alone))["mean action gap"] == ABSENT


def test_no_probability_without_a_fitted_temperature() -> None:
    """Bug: softmax(Q / 1) of a run on whose text nothing was fitted is shown as its policy."""
    found = inspect_text(make_policy(temperature=1.0), TEXT)
    assert found.log_probability_X is None and "log" not in page_data(found)["figures"]
    assert "nats a token, declared policy" not in dict(summary(found))


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "empty"), ("a", "single token"), ("aXb", "'X'"), ("ab" * 10_001, "one page holds 20,000")],
    ids=["empty", "one token", "unknown", "too long"],
)
def test_texts_that_cannot_be_inspected(text: str, part: str) -> None:
    """Bug: a traceback of torch about an empty tensor, or an unknown character that is scored as if known."""
    with pytest.raises(UserError, match=part):
        inspect_text(make_policy(), text)


def test_many_rows_of_windows_are_one_forward_each_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a limit on memory changes the figures, or their order."""
    whole = inspect_text(make_policy(), TEXT)
    monkeypatch.setattr("dqnlm.evaluation.inspection.MOST_NUMBERS", 1)
    torch.testing.assert_close(inspect_text(make_policy(), TEXT).q_X, whole.q_X)


def embedded(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    found: dict[str, Any] = json.loads(match[1])
    return found


def test_page_holds_the_figures() -> None:
    """Bug: the page shows other numbers than were computed, or loses a token of the text."""
    policy = make_policy(head="categorical", outputs=("v",))
    found = inspect_text(policy, TEXT)
    page = build_page(found, Heading("a run", [("step", "7")], ["what Q is"]))
    data = embedded(page)
    for key, tensor in (("q", found.q_X), ("value", found.value_X), ("advantage", found.advantage_X),
                        ("gap", found.gap_X), ("log", found.log_probability_X)):  # fmt: skip
        assert tensor is not None and data["figures"][key]["values"] == pytest.approx(tensor.tolist(), rel=1e-4)
        assert len(data["figures"][key]["levels"]) == len(TEXT) - 1
    assert data["rank"] == found.rank_X.tolist() and data["best"] == found.best_XK.tolist() and data["ids"] == found.ids
    advantage = data["best_q"][3][1] - data["figures"]["value"]["values"][3]
    assert data["best_advantage"][3][1] == pytest.approx(advantage, abs=1e-4)
    assert data["distribution"]["atoms"] == [pytest.approx([i / 3 for i in range(7)], rel=1e-4)]  # 0 .. 2, written once
    assert len(data["distribution"]["weights"]) == len(TEXT) - 1
    shown = re.search(r'<div class="text"[^>]*>(.*?)</div>', page, re.DOTALL)
    assert shown and re.sub(r"<[^>]+>", "", shown[1]).replace("·", " ").replace("↵", "") == TEXT
    assert page.count('tabindex="0"') == 1 and page.count('tabindex="-1"') == len(TEXT) - 2
    assert all(part in page for part in ("what Q is", "mean action gap", "<polyline", "a run"))


def test_page_is_self_contained_and_escaped() -> None:
    """Bug: a text becomes markup, ends the script that holds the figures, or the page loads something."""
    policy = make_policy()
    found = inspect_text(policy, "abba")
    evil = dict.fromkeys(found.texts, "</script><s>&amp;\"'<!--")  # tokens of several characters
    found = dataclasses.replace(found, texts=evil)
    page = build_page(found, Heading("<b>run", [("<i>", "<u>")], ["<em>"]))
    assert not re.search(r"<b>run|<(i|u|em|s)>|<!--", page)
    assert page.count("<script") == page.count("</script>") == 2
    loaded = re.findall(r"(?:src|href)=|@import|url\(|fetch\(|import\(|XMLHttpRequest", page)
    assert not loaded
    assert embedded(page)["names"] == {str(token): text for token, text in evil.items()}
    assert page.count("&lt;/script&gt;&lt;s&gt;&amp;amp;&quot;&#x27;") == 4
    assert len(set(ids := re.findall(r' id="([^"]+)"', page))) == len(ids)


def test_script_finds_what_it_shows() -> None:
    """Bug: the script asks for an element that the page does not have, or cannot be parsed."""
    page = build_page(inspect_text(make_policy(), TEXT), Heading("a run", [], []))
    asked = set(re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', inspection_style.SCRIPT))
    assert asked and asked <= set(re.findall(r' id="([^"]+)"', page))
    node = shutil.which("node")
    if node is not None:
        done = subprocess.run([node, "--check", "-"], input=inspection_style.SCRIPT, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_white_space_and_controls_can_be_seen() -> None:
    """Bug: a space, tab or line break that nobody sees; a control character that changes the page."""
    assert visible("a \t\n") == "a·⇥\t↵\n" and visible("\x00\x1b") == "␀␛" and visible("\u200b") == "⟨200B⟩"
    assert [token_name(c) for c in "\n\t x"] == ["↵ line break", "⇥ tab", "· space", "x"]
    policy = make_policy()
    policy.tokens, policy.legal_A = ByteTokenizer(), None
    policy.network = QNetwork(TokenEncoder(256, 8, 1.0), cases.BODIES["gru"](), {"q": Linear(8, 256, 1)})
    policy.spec = task_spec(256)
    assert inspect_text(policy, "aé").texts[0xC3] == "\\xc3"


def test_levels_by_hand() -> None:
    """Bug: colours the wrong way round, an outlier that bleaches the rest, a crash where all are equal or none exists."""
    nan = float("nan")
    levels, low, high = colour_levels(torch.tensor([0.0, 1.0, nan, 0.5]))
    assert levels == "0a-5" and (low, high) == (0.02, 0.98)  # quantiles of 0, .5, 1: .04 * .5 and 1 - .04 * .5
    assert colour_levels(torch.tensor([3.0, 3.0])) == ("55", 3.0, 3.0)
    assert colour_levels(torch.tensor([nan])) == ("-", None, None)
    outlier = torch.cat([torch.linspace(0, 1, 1000), torch.tensor([1e6])])
    assert set(colour_levels(outlier)[0]) == set(inspection_style.LEVELS)


def test_text_can_be_read_on_every_colour() -> None:
    """Bug: ink on a background of its own brightness. Contrast as WCAG 2 defines it; 4.5 is what it asks of text."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    inks = re.findall(r"--ink: (#\w{6})", inspection_style.STYLE)
    assert len(inks) == 2
    for ink, ends in zip(inks, (inspection_style._LIGHT, inspection_style._DARK), strict=True):
        for colour in inspection_style.scale(ends):
            darker, lighter = sorted((luminance(ink), luminance(colour)))
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (ink, colour)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a text, one on walks, and one without tokens."""
    root = tmp_path_factory.mktemp("inspect")
    text = tools.write_text(root / "text.txt")
    day = root / "outputs" / "2026-01-01"
    tools.start(day / "10-00-00-words", text, "trainer.rollouts=4")
    walks = [
        "+experiment=random_walks",
        "device=cpu",
        "logger=none",
        "progress=false",
        "trainer.offline_rounds=3",
    ]
    for name, overrides in (("10-00-01-walks", [*walks, "algorithm=ilql"]), ("10-00-02-poles", POLES)):
        checked, choices = tools.settings(overrides)
        (day / name).mkdir(parents=True)
        tools.launch.start(checked, day / name, choices=choices, command_line=["dqnlm", "train", *overrides])
    return root


POLES = ["+experiment=cartpole", "device=cpu", "logger=none", "progress=false", "trainer.rollouts=2",
         "evaluation.episodes=2"]  # fmt: skip
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(trained)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["inspect", *arguments])
        return (code, *capsys.readouterr())

    return call


def test_command_on_a_text_run(run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: another place than is printed, another text than was given, or a heading of another run."""
    code, out, err = run("10-00-00", "--text", "ten seats", "--device", "cpu")
    page = Path(out.strip())
    assert code == 0 and page.resolve() == trained / "outputs/2026-01-01/10-00-00-words/inspect.html", err
    content = page.read_text(encoding="utf-8")
    data = embedded(content)
    policy = load_policy(trained / "outputs/2026-01-01/10-00-00-words", device="cpu")
    assert data["ids"] == policy.tokenizer.encode("ten seats").tolist()
    with torch.no_grad():
        output = policy.network(torch.tensor([data["ids"][:-1]]))
    q_SA = action_values(policy, {name: raw[0] for name, raw in output.items()})
    expected = q_SA.gather(-1, torch.tensor(data["ids"][1:])[:, None]).flatten().tolist()
    assert data["figures"]["q"]["values"] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert all(
        part in content for part in ("2026-01-01/10-00-00-words", "checkpoint", "discounted by 0.5", "reward=exact_match")
    )
    other = tmp_path / "page.html"
    (tmp_path / "text.txt").write_text("ten seats")
    assert run("10-00-00", "--text-file", str(tmp_path / "text.txt"), "--output", str(other), "--device", "cpu")[0] == 0
    assert embedded(other.read_text()) == data
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ten seats")))
    assert run("10-00-00", "--text-file", "-", "--output", str(other), "--device", "cpu")[0] == 0
    assert embedded(other.read_text()) == data


def test_command_on_walks(run: Run) -> None:
    """Bug: a task with an alphabet of its own is refused, or V is not the network's own."""
    code, out, err = run("10-00-01", "--text", "bcda", "--checkpoint", "last", "--device", "cpu")
    assert code == 0, err
    content = Path(out.strip()).read_text()
    data = embedded(content)
    assert data["ids"] == [1, 2, 3, 0] and data["actions"] == 21
    assert "V is an output of the network&#x27;s own" in content and "the copied behaviour times" in content


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["10-00-00", "--text", "teQ"], ["'Q'", "position 3"]),
        (["10-00-00", "--text", ""], ["empty"]),
        (["10-00-00", "--text", "t"], ["single token"]),
        (["10-00-02", "--text", "ten"], ["has no tokens", "dqnlm eval"]),
        (["10-00-00", "--text-file", "nowhere.txt"], ["nowhere.txt"]),
        (["10-00-00", "--text", "ten", "--output", "nowhere/page.html"], ["nowhere/page.html"]),
        (["10-00-00", "--text", "ten", "--output", "."], ["name a file"]),
        (["10-00-00", "--text", "ten", "--checkpoint", "77"], ["no checkpoint '77'"]),
        (["other", "--text", "ten"], ["RUN 'other'"]),
    ],
)
def test_mistakes(run: Run, arguments: list[str], parts: list[str]) -> None:
    """Bug: a traceback, several messages, or half a page."""
    if "10-00-02" in arguments:
        pytest.importorskip("gymnasium")
    code, out, err = run(*arguments)
    assert code == 2 and not out and err.count("error:") == 1 and "Traceback" not in err
    assert all(part in err for part in parts), err


def test_text_file_that_is_no_utf_8(run: Run, tmp_path: Path) -> None:
    """Bug: a traceback of the decoder."""
    (tmp_path / "text.txt").write_bytes(b"te\xffn")
    code, _, err = run("10-00-00", "--text-file", str(tmp_path / "text.txt"))
    assert code == 2 and "text.txt, line 1 is no UTF-8: byte 0xff at offset 2" in err


def test_a_text_is_needed() -> None:
    """Bug: a page of nothing, where neither --text nor --text-file is given."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["inspect", "latest"])
    assert stopped.value.code == 2


def test_a_prompt_is_read_and_not_scored(tmp_path: Path) -> None:
    """Bug: the tokens of a prompt, which nothing was learned about, count in the means; or the text is read without it."""
    whole, found = inspect_text(make_policy(), TEXT), inspect_text(make_policy(), TEXT[7:], TEXT[:7])
    assert found.read + found.texts[found.ids[0]] == TEXT[:7] and len(found.q_X) == len(TEXT) - 7
    torch.testing.assert_close(found.q_X, whole.q_X[6:])
    assert found.starts == [0, *(start - 6 for start in whole.starts if start > 6)]
    first = inspect_text(make_policy(), TEXT[1:], TEXT[:1])
    assert first.ids == whole.ids and first.starts == whole.starts and first.read == ""
