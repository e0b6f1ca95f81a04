"""Pairs of texts: files, tokens, rows, answers of different lengths, beam search, figures."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dqnlm.agent.generation import answers
from dqnlm.agent.policy import Policy
from dqnlm.builder import launch
from dqnlm.commands.evaluate import main as evaluate
from dqnlm.data.pairs.dataset import Pairs, build_pairs
from dqnlm.data.pairs.files import TextPair, dialogues, parallel
from dqnlm.data.trajectories.files import DataSource
from dqnlm.envs.prompted import Prompted
from dqnlm.errors import UserError
from dqnlm.evaluation.answers import PairEvaluator
from dqnlm.evaluation.decoding import Decoding, answer, beam_search
from dqnlm.evaluation.scores import distinct_words, scores
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear
from dqnlm.rewards.reference_metrics import EditDistance
from dqnlm.runs.directory import RunDirectory
from dqnlm.types import DECISION, TERMINATED
from tests.helpers import runs as tools
from tests.helpers.networks import BODIES, VOCABULARY

CPU = torch.device("cpu")
PAIRS = [TextPair("ab", "ba"), TextPair("abc", "c"), TextPair("a", "abcc")]


def make_pairs(pairs: list[TextPair] = PAIRS, max_tokens: int = 10) -> Pairs:
    parts = {"train": pairs, "heldout": pairs[:2], "test": pairs[:1]}
    return build_pairs(parts, DataSource("made", "here", "0"), "character", None, max_tokens)


def make_env(num_envs: int = 3, horizon: int = 4, evaluating: bool = True, copies: int = 1, seed: int = 0) -> Prompted:
    data = make_pairs()
    size = data.tokenizer.vocabulary_size
    reward = EditDistance(size, data.tokenizer, data.eos_id, unit="character", scale=1.0, clip=None, increments=False)
    return Prompted(
        data.train.prompts, data.train.references, data.longest_prompt, reward, size, None, data.eos_id, CPU, seed, evaluating,
        num_envs=num_envs, samples_per_prompt=copies, horizon=horizon,
    )  # fmt: skip


def test_ids_of_pairs() -> None:
    """Characters by code point: line break 0, a 1, b 2, c 3. Prompts end in the line break, answers do not have it."""
    data = make_pairs()
    assert data.train.prompts.ids.tolist() == [1, 2, 0, 1, 2, 3, 0, 1, 0] and data.eos_id == 0
    assert data.train.prompts.start_K.tolist() == [0, 3, 7, 9] and data.train.prompts.longest() == 4
    assert data.train.references.ids.tolist() == [2, 1, 3, 1, 2, 3, 3]
    assert data.train_ids.tolist() == [2, 1, 0, 3, 0, 1, 2, 3, 3, 0]
    shorter = make_pairs(max_tokens=2)
    assert shorter.train.texts == PAIRS[:1] and "4 pairs" not in str(shorter.source.notes)
    assert any("left out" in note for note in shorter.source.notes)
    with pytest.raises(UserError, match="no pair"):
        make_pairs([TextPair("abc", "abc")] * 2, max_tokens=2)


def test_rows_by_hand() -> None:
    """Answers `ba`, `c` without an end, and an end at once, to `ab`, `abc`, `a`; the horizon is 4, T = 4 + 4 - 1 = 7.

    Edit similarities with `ba`, `c`, `abcc`: 1 for `ba`; `cccc` against `c` 1 - 3/4; nothing against four letters 0.
    """
    env = make_env()
    prompt_EP, length_E = env.prompts()
    assert prompt_EP.tolist() == [[1, 2, 0, 0], [1, 2, 3, 0], [1, 0, 0, 0]] and length_E.tolist() == [3, 4, 2]
    action_EH = torch.tensor([[2, 1, 0, 3], [3, 3, 3, 3], [0, 2, 2, 2]])  # what stands behind an end is no answer
    rows = env.score_completions(action_EH, torch.tensor([3, 4, 1]))
    assert rows.observation_BS.tolist() == [
        [1, 2, 0, 2, 1, 0, 0, 0],
        [1, 2, 3, 0, 3, 3, 3, 3],
        [1, 0, 0, 0, 0, 0, 0, 0],
    ]
    end = DECISION | TERMINATED
    assert rows.flag_BT.tolist() == [[0, 0, 1, 1, end, 0, 0], [0, 0, 0, 1, 1, 1, end], [0, end, 0, 0, 0, 0, 0]]
    assert rows.length_B.tolist() == [5, 7, 2] and torch.equal(rows.action_BT, rows.observation_BS[:, 1:])
    expected = [[0, 0, 0, 0, 1.0, 0, 0], [0, 0, 0, 0, 0, 0, 0.25], [0] * 7]
    assert torch.allclose(rows.reward_BT, torch.tensor(expected))
    assert (env.spec.first_decision, env.spec.row_transitions) == (1, 7)


def test_demonstrations_are_the_references() -> None:
    """Bug: an answer without its end, of another prompt, or paid as if it were wrong."""
    env = make_env(horizon=5)
    generator, texts = torch.Generator().manual_seed(0), set()
    for _ in range(40):  # the pairs of one call are about equally long
        rows = env.demonstrate(4, generator, with_rewards=True)
        texts |= {
            tuple(row[: n + 1].tolist()) for row, n in zip(rows.observation_BS, rows.length_B.tolist(), strict=True)
        }
        assert torch.equal(rows.reward_BT.sum(1), torch.ones(4))
    assert texts == {(1, 2, 0, 2, 1, 0), (1, 2, 3, 0, 3, 0), (1, 0, 1, 2, 3, 3, 0)}
    cut = make_env(horizon=2).demonstrate(40, generator, with_rewards=False)
    assert (cut.reward_BT == 0).all() and int(((cut.flag_BT & DECISION) != 0).sum(1).max()) == 2


def test_demonstrations_are_drawn_alike() -> None:
    """Bug: long or short pairs more often, because neighbours in length are taken. Of 3,000 draws each of three pairs has
    1,000 +- 26; the draws of one call are not independent, four of them: within 5 x 2 x 26 with a chance of error below 1e-6.
    """
    env, generator, count = make_env(horizon=5), torch.Generator().manual_seed(5), torch.zeros(8)
    for _ in range(750):
        count += torch.bincount(env.demonstrate(4, generator, with_rewards=False).length_B, minlength=8)
    assert count.sum() == 3000 and ((count[[5, 6]] - torch.tensor([2000.0, 1000.0])).abs() < 260).all()


def test_prompts_are_drawn_alike_in_groups_and_resume() -> None:
    """Bug: copies with different prompts, or a generator that starts again."""
    env = make_env(num_envs=6, evaluating=False, copies=2)
    env.prompts()
    state = env.state_dict()
    first = env.prompts()[0]
    drawn = [env.prompts()[0] for _ in range(20)]
    assert all(torch.equal(prompt_EP[::2], prompt_EP[1::2]) for prompt_EP in (first, *drawn))
    assert any(not torch.equal(prompt_EP[:2], prompt_EP[2:4]) for prompt_EP in drawn)
    other = make_env(num_envs=6, evaluating=False, copies=2, seed=9)
    other.load_state_dict(state)
    assert torch.equal(other.prompts()[0], first)
    with pytest.raises(UserError, match="no multiple"):
        make_env(num_envs=3, evaluating=False, copies=2)


def network_of(body: str) -> QNetwork:
    torch.manual_seed(1)
    made = BODIES[body]()
    network = QNetwork(TokenEncoder(VOCABULARY, made.width, 1.0), made, {"q": Linear(made.features, VOCABULARY, 1)}).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)  # so that every token before the last one matters
    return network


@pytest.mark.parametrize("body", BODIES)
def test_answers_equal_one_prompt_at_a_time(body: str) -> None:
    """Bug: a padded prompt that is read, a cache at another row's place, or a row that goes on after its end."""
    network = network_of(body)
    length_E, most, stop = torch.tensor([1, 4, 2, 3]), 4, 5
    prompt_EP = torch.randint(VOCABULARY, (4, 4), generator=torch.Generator().manual_seed(3))
    action_EH, completion_length_E = answers(
        network, prompt_EP, length_E, lambda out: out["q"].squeeze(-1).argmax(-1), stop, most
    )
    for row, (prompt_P, length) in enumerate(zip(prompt_EP, length_E.tolist(), strict=True)):
        text = prompt_P[:length].tolist()
        for _ in range(most):
            text.append(int(network(torch.tensor([text]))["q"][0, -1].argmax()))
            if text[-1] == stop:
                break
        said = text[length:]
        assert action_EH[row].tolist() == said + [0] * (most - len(said)) and int(completion_length_E[row]) == len(said)


class Fixed(nn.Module):
    """Log-probabilities by the last token alone: a table, so that the best text is found by trying all."""

    max_observations = None

    def __init__(self, log_AA: Tensor) -> None:
        super().__init__()
        self.log_AA = log_AA

    def forward(self, observation_BS: Tensor, first: int = 0) -> dict[str, Tensor]:
        return {"q": self.log_AA[observation_BS[:, first:]][..., None]}


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_best_text(seed: int) -> None:
    """Against all texts of at most 3 tokens of 4: a beam as wide as there are texts leaves none out."""
    log_AA = (torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) * 2).log_softmax(-1)
    policy = Policy.__new__(Policy)
    policy.network, policy.legal_A, policy.declared, policy.temperature = Fixed(log_AA), None, "boltzmann", 1.0  # type: ignore[assignment]

    class PolicyOfTable(Policy):
        device = CPU  # type: ignore[assignment]
        default = "boltzmann"  # type: ignore[assignment]

        def preference(self, output: dict[str, Tensor]) -> Tensor:
            return output["q"].squeeze(-1)

    policy.__class__ = PolicyOfTable
    stop, most = 0, 3
    candidates = []
    for length in range(1, most + 1):
        for text in itertools.product(range(4), repeat=length):
            if stop not in text[:-1] and (text[-1] == stop or length == most):
                steps = zip((1, *text[:-1]), text, strict=True)
                candidates.append((sum(float(log_AA[a, b]) for a, b in steps) / length, list(text)))
    assert beam_search(policy, torch.tensor([2, 1]), stop, most, 200) == max(candidates)[1]
    greedy, last = [], 1
    while len(greedy) < most and (not greedy or greedy[-1] != stop):
        last = int(log_AA[last].argmax())
        greedy.append(last)
    assert beam_search(policy, torch.tensor([2, 1]), stop, most, 1) == greedy


def test_figures_of_answers() -> None:
    """Two equal texts score 100; a pair of words said twice is one of two."""
    pytest.importorskip("sacrebleu")
    figures, signatures = scores(["a small dog runs far away"] * 2, ["a small dog runs far away"] * 2)
    assert figures["eval/bleu"] == pytest.approx(100) and figures["eval/chrf"] == pytest.approx(100)
    assert figures["eval/length_ratio"] == 1 and figures["eval/distinct_2"] == pytest.approx(0.5)
    assert "nc:6|nw:0" in signatures["chrf"] and "tok:13a" in signatures["bleu"]
    assert distinct_words(["a b a b"]) == pytest.approx(2 / 3)  # ab ba ab


def write_parallel(folder: Path, lines: int = 60) -> Path:
    folder.mkdir()
    for name in ("train", "val", "test"):
        (folder / f"{name}.x").write_text("".join(f"ab{'c' * (i % 4)}\n" for i in range(lines)))
        with gzip.open(folder / f"{name}.y.gz", "wt") as file:
            file.write("".join(f"{'c' * (i % 4)}ba\n" for i in range(lines)))
    return folder


NAMES = {"train": "train", "heldout": "val", "test": "test"}


def test_parallel_files(tmp_path: Path) -> None:
    folder = write_parallel(tmp_path / "pairs")
    parts, source = parallel(str(folder), NAMES, "x", "y")
    assert parts["train"][1] == TextPair("abc", "cba") and len(parts["heldout"]) == 60 and len(source.sha256) == 64
    (folder / "train.x").write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"train\.x has 2 lines and .*train\.y\.gz has 60"):
        parallel(str(folder), NAMES, "x", "y")
    (folder / "train.x").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(UserError, match=r"train\.x, line 2 is no UTF-8: byte 0xff"):
        parallel(str(folder), NAMES, "x", "y")
    (folder / "train.x").unlink()
    with pytest.raises(UserError, match=r"train\.x"):
        parallel(str(folder), NAMES, "x", "y")
    (folder / "val.y.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="gzip"):
        parallel(str(folder), {"heldout": "val"}, "x", "y")


def test_dialogue_files(tmp_path: Path) -> None:
    """Every turn after the first, with the two before it; whole dialogues are held out."""
    file = tmp_path / "talk.txt"
    file.write_text("".join(f"hello {i} __eou__ yes __eou__ no {i} __eou__\n" for i in range(10)))
    parts, source = dialogues(str(file), 2, 0.2)
    assert [len(parts[name]) for name in ("train", "heldout", "test")] == [16, 2, 2] and source.notes == []
    assert parts["train"][:2] == [TextPair("hello 0", "yes"), TextPair("hello 0 | yes", "no 0")]
    assert parts["heldout"][0].prompt == "hello 8" and parts["test"][0].prompt == "hello 9"
    said = [f"hello {i} __eou__ yes __eou__ no {i} __eou__" for i in range(10)]
    said[8] = "hello 3 __eou__ yes __eou__ else 8 __eou__"  # its first pair is that of dialogue 3
    file.write_text("\n".join(said))
    parts, source = dialogues(str(file), 2, 0.2)
    assert [len(parts[name]) for name in ("train", "heldout", "test")] == [16, 0, 2] and "1 held-out" in source.notes[0]
    file.write_text("a line without an end\n")
    with pytest.raises(UserError, match="line 1 has no __eou__"):
        dialogues(str(file), 2, 0.2)


TINY_PAIRS = [
    "data=translation", "env=translation", "reward=edit_distance", "reward.unit=character", "reward.scale=4.0", "data.source=x",
    "data.target=y", "data.test=test", "data.tokenizer=character", "data.vocabulary_size=null", "algorithm=tbrm",
    "objective.trajectory.reference=start", "objective.trajectory.temperature=1.0", "pretraining.updates=6",
    "env.horizon=8", "network.context=20", "buffer.capacity=2000", "trainer.rollouts=8",
]  # fmt: skip


def test_a_run_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: prompts drawn anew, or answers lost, where a run is killed in its rollouts."""
    folder = write_parallel(tmp_path / "pairs")
    tools.start(tmp_path / "whole", folder, *TINY_PAIRS)
    tools.at_rollout(monkeypatch, 10, tools.kill)
    with pytest.raises(tools.Killed):
        tools.start(tmp_path / "cut", folder, *TINY_PAIRS)
    launch.resume(tmp_path / "cut", [])
    assert tools.metrics(tmp_path / "whole") == tools.metrics(tmp_path / "cut")
    assert tools.differences(tools.state(tmp_path / "whole"), tools.state(tmp_path / "cut")) == []


def test_evaluations_of_few_and_long_pairs(tmp_path: Path) -> None:
    """Bug: more answers than pairs, scored against others' references; a prompt of the test that the network cannot read."""
    folder = write_parallel(tmp_path / "pairs", lines=5)
    checked, _ = tools.settings(tools.tiny(folder, *TINY_PAIRS, "evaluation.episodes=50"))
    run = RunDirectory(tmp_path / "few")
    run.path.mkdir()
    evaluator = launch.build(checked, run).components.evaluator
    assert isinstance(evaluator, PairEvaluator) and evaluator.make_env().num_envs == len(evaluator.texts) == 5
    (folder / "test.x").write_text("ab" * 9 + "\n" + "ab\n" * 4)
    with pytest.raises(UserError, match=r"up to 26 transitions, more than network\.context=20 reads"):
        tools.start(tmp_path / "long", folder, *TINY_PAIRS)


@pytest.mark.slow
def test_learns_to_answer_by_reward_alone(tmp_path: Path) -> None:
    """Cloned a little, then paid for answers: greedy answers get better, with no answer shown any more.

    Character edit similarity of the greedy answers to `ab`, `abc`, `abcc`, `abccc` (to be written backwards), before and after
    120 rollouts; six seeds gained .19 to .52 (the threshold of .1 was missed by none).
    """
    folder = write_parallel(tmp_path / "pairs")
    long = [*TINY_PAIRS, "trainer.rollouts=120", "pretraining.updates=20", "env.num_envs=32", "trainer.batch_size=32",
            "optimizer.lr=3e-3", "evaluation.every=1000", "checkpoint.every=1000"]  # fmt: skip
    tools.start(tmp_path / "run", folder, *long)
    returns = [
        line["eval/return"] for line in tools.lines(RunDirectory(tmp_path / "run").metrics) if "eval/return" in line
    ]
    assert len(returns) == 2 and returns[1] > returns[0] + 4 * 0.1


def test_answering_from_a_run(tmp_path: Path) -> None:
    """Bug: answers with their prompt, or the line break; a prompt longer than the network reads without a word."""
    from dqnlm import load_policy

    folder = write_parallel(tmp_path / "pairs")
    tools.start(tmp_path / "run", folder, *TINY_PAIRS)
    policy = load_policy(tmp_path / "run")
    greedy = answer(policy, ["ab", "abcc", "ab"], 8)
    assert greedy[0] == greedy[2] and all("\n" not in text for text in greedy)
    assert len(answer(policy, ["ab"], 8, Decoding(beam=3))) == 1
    with pytest.raises(UserError, match="more than the 21"):
        answer(policy, ["ab" * 10], 8)
    with pytest.raises(UserError, match="empty"):
        answer(policy, [""], 8)
    with pytest.raises(UserError, match="at least 1"):
        answer(policy, ["ab"], 8, Decoding(beam=0))


def test_drawn_answers_are_scored_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: the reward of other pairs than those answered, a seed that changes nothing, a saved file that lacks some."""
    folder = write_parallel(tmp_path / "pairs")
    tools.start(tmp_path / "run", folder, *TINY_PAIRS)

    def run(seed: int, *more: str) -> dict[str, Any]:
        evaluate([str(tmp_path / "run"), "--temperature", "1.0", "--seed", str(seed), "--json", *more])
        figures: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        looks.append(figures.pop("test_looks"))
        return figures

    looks: list[int] = []
    saved = tmp_path / "answers.jsonl"
    first = run(3, "--save", str(saved))
    assert first == run(3) and first != run(4) and looks == [1, 2, 3]
    lines = tools.lines(saved)
    assert [line["reference"] for line in lines] == [f"{'c' * (i % 4)}ba" for i in range(60)] and len(
        set(line["completion"] for line in lines)
    ) > 1
    for line in lines:  # 4 times the similarity
        distance = levenshtein(line["completion"], line["reference"])
        similarity = 1 - distance / max(len(line["completion"]), len(line["reference"]))
        assert line["reward"] == pytest.approx(4 * similarity, abs=1e-5)
    assert first["eval/return"] == pytest.approx(sum(line["reward"] for line in lines) / len(lines), abs=1e-5)


def test_what_answers_are_compared_with_changes_what_is_learned(tmp_path: Path) -> None:
    """Bug: `baseline` is read and changes nothing; or siblings are not found among the rows of a rollout."""
    folder = write_parallel(tmp_path / "pairs")
    together = [*TINY_PAIRS, "env.samples_per_prompt=2", "buffer=rollout", "trainer.log_every=1"]
    losses = {}
    for baseline in ("value", "group"):
        tools.start(tmp_path / baseline, folder, *together, f"objective.trajectory.baseline={baseline}")
        lines = tools.lines(RunDirectory(tmp_path / baseline).metrics)
        losses[baseline] = [line["loss/trajectory"] for line in lines if "loss/trajectory" in line]
    assert (
        len(losses["value"]) == len(losses["group"]) > 3 and max(losses["group"]) > 0.01
    )  # 0 where siblings say the same
    assert all(one != other for one, other in zip(*losses.values(), strict=True))


def levenshtein(one: str, other: str) -> int:
    """The plain recursion."""
    if not one or not other:
        return len(one) + len(other)
    changed = levenshtein(one[1:], other[1:]) + (one[0] != other[0])
    return min(changed, levenshtein(one[1:], other) + 1, levenshtein(one, other[1:]) + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beam", "2", "--temperature", "1"], "give one of them"),
        (["--seed", "1"], "--temperature makes"),
        (["--temperature", "0"], "above 0"),
    ],
)
def test_decodings_that_cannot_be(tmp_path: Path, arguments: list[str], message: str) -> None:
    folder = write_parallel(tmp_path / "pairs")
    tools.start(tmp_path / "run", folder, *TINY_PAIRS)
    with pytest.raises(UserError, match=message):
        evaluate([str(tmp_path / "run"), *arguments])
