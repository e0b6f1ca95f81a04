"""Rewards that score texts: each against a slow oracle or by hand, their payments, their bounds, and one from outside."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from dqnlm import cli
from dqnlm.config import composition, validation
from dqnlm.data.tokenizers.base import ByteTokenizer, CharacterTokenizer
from dqnlm.errors import UserError
from dqnlm.rewards import pretrained
from dqnlm.rewards.base import Episodes
from dqnlm.rewards.reference_metrics import common_subsequence, edit_distance
from dqnlm.rewards.text import TextReward, on_host
from dqnlm.rewards.text_statistics import Lexicon
from dqnlm.tasks.rewards import build_reward
from dqnlm.types import Bounds
from tests.helpers import pretrained as pretrained_models
from tests.helpers import runs as tools
from tests.helpers.paths import CONFIGS

TRAINING = "the cat sat on the mat. a cat's hat, the rat. " * 3
TOKENS = CharacterTokenizer(TRAINING + "|xyz")
STOP = TOKENS.characters.index("|")


def ids(text: str) -> list[int]:
    return [int(i) for i in TOKENS.encode(text)]


def padded(texts: list[str], width: int = 0) -> tuple[Tensor, Tensor]:
    width = max([width, *map(len, texts)])
    rows = [ids(text) + [0] * (width - len(text)) for text in texts]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(texts), width), torch.tensor([len(text) for text in texts])


def episodes(prompts: list[str], said: list[str], references: list[str]) -> Episodes:
    """`|` is the stop token; references are wider than the decisions, as in a data set of texts."""
    return Episodes(*padded(prompts), *padded(said), *padded(references, 40))


def build(name: str, **changes: Any) -> TextReward:
    node = yaml.safe_load((CONFIGS / "reward" / f"{name}.yaml").read_text()) | changes
    pool: dict[str, Any] = {
        "num_actions": TOKENS.vocabulary_size, "tokenizer": TOKENS, "eos_id": STOP, "train_ids": TOKENS.encode(TRAINING),
        "device": "cpu",
    }  # fmt: skip
    return build_reward(node, pool)  # type: ignore[return-value]


def score(name: str, said: str, reference: str = "", prompt: str = "a ", **changes: Any) -> float:
    """What the whole episode earns."""
    return float(build(name, **changes).judge(episodes([prompt], [said], [reference])).sum())


class Vowels(TextReward):
    """Share of vowels; shows what it was asked."""

    def __init__(self, **changes: Any) -> None:
        settings = {"scale": 1.0, "clip": None, "increments": False}
        super().__init__(TOKENS.vocabulary_size, TOKENS, STOP, **settings | changes)
        self.asked: list[tuple[str, str, str]] = []

    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        self.asked += zip(prompts, completions, references, strict=True)
        return [sum(c in "aeo" for c in text) / max(len(text), 1) for text in completions]


SAID = episodes(["th", "a c", ""], ["at|", "ee", "x"], ["e cat", "at", ""])


def test_texts_reach_the_score_without_padding_and_stop_token() -> None:
    """Guards an id 0 that is padding and a newline alike, and a stop token that is judged as text."""
    reward = Vowels()
    assert reward.judge(SAID).tolist() == [[0, 0, 0.5], [0, 1, 0], [0, 0, 0]]
    assert reward.asked == [("th", "at", "e cat"), ("a c", "ee", "at"), ("", "x", "")]
    assert on_host(SAID, None).completions[0] == ids("at|")


def test_increments_by_hand() -> None:
    """Scores of the prefixes: a 1, at 1/2 (the stop adds nothing); e 1, ee 1; x 0. Their differences, the first from 0."""
    reward = Vowels(increments=True, scale=2.0, clip=1.5)
    assert reward.judge(SAID).tolist() == [[1.5, -0.5, 0], [1.5, 0, 0], [0, 0, 0]]
    assert [said for _, said, _ in reward.asked] == ["a", "at", "e", "ee", "x"] and reward.asked[1] == (
        "th",
        "at",
        "e cat",
    )


class Places(Vowels):
    """1, 2, 3 ... for the tokens."""

    per_token, score_bounds = True, Bounds(0.0, 4.0)

    def score_tokens(
        self, prompts: list[Any], completions: list[list[int]], references: list[Any]
    ) -> list[list[float]]:
        return [[float(t + 1) for t in range(len(said))] for said in completions]


def test_numbers_for_each_token_by_hand() -> None:
    """Scaled and limited one by one; the stop token is worth 0."""
    assert Places(scale=2.0, clip=3.0).judge(SAID).tolist() == [[2, 3, 0], [2, 3, 0], [2, 0, 0]]


def test_bytes_that_are_no_character_yet() -> None:
    """Guards prefixes cut in the middle of a character: the sum is still the score of the whole text."""
    reward = Vowels(increments=True)
    reward.tokenizer, reward.eos_id = ByteTokenizer(), None
    said = torch.tensor([list("aé€".encode())])
    assert float(reward.judge(Episodes(said[:, :0], torch.zeros(1).long(), said, torch.tensor([6]), said[:, :0],
                                       torch.zeros(1).long())).sum()) == pytest.approx(1 / 3)  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"increments": True}, {"scale": -2.0, "clip": 0.5}])
@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("kind", [Vowels, Places])
def test_returns_stay_within_their_bounds(changes: dict[str, Any], gamma: float, kind: type[Vowels]) -> None:
    """Every text of 1 to 4 of three tokens, from every decision; and the bounds are reached, so that they are not too wide."""
    if kind is Places and "increments" in changes:
        with pytest.raises(UserError, match="set one of them to false"):
            kind(**changes)
        return
    texts = ["".join(t) for n in range(1, 5) for t in itertools.product("ax", repeat=n)]
    reward = kind(**changes)
    reward_BH = reward.judge(episodes([""] * len(texts), texts, [""] * len(texts)))
    low, high = reward.return_bounds(gamma, 4)
    values = [sum(gamma**i * float(r) for i, r in enumerate(row[t : len(text)]))
              for row, text in zip(reward_BH, texts, strict=True) for t in range(len(text))]  # fmt: skip
    assert low - 1e-6 <= min(values) and max(values) <= high + 1e-6
    assert reward.bounds.low <= float(reward_BH.min()) and float(reward_BH.max()) <= reward.bounds.high
    if kind is Vowels and "increments" not in changes:
        assert (min(values), max(values)) == pytest.approx((low, high))


def test_bounds_by_hand() -> None:
    """A share of 0 to 1, scaled by -3 and limited to 2: paid once -2 to 0; endless, every 4 decisions: 2 / (1 - .5^4)."""
    reward = Vowels(scale=-3.0, clip=2.0)
    assert reward.bounds == (-2.0, 0.0) == reward.return_bounds(1.0, 9) == reward.return_bounds(0.5, 4)
    assert reward.return_bounds(0.5, 4, endless=True) == pytest.approx((-2 / (1 - 0.5**4), 0.0))
    assert reward.return_bounds(1.0, 4, endless=True) == (-float("inf"), 0.0)
    assert Vowels(increments=True).return_bounds(0.9, 4, endless=True) == (-1.0, 1.0)
    model = build("language_model", floor=-3.0)
    assert model.bounds == (-3.0, 0.0) and model.return_bounds(0.5, 2) == (-4.5, 0.0)


def test_overlap_against_slow_tables() -> None:
    """Guards the bit tricks: 400 pairs of random texts of 0 to 12 and, beyond a machine word, 60 to 90 characters."""
    draw = random.Random(0)
    for number in range(400):
        most = 12 if number % 10 else 90
        a, b = ("".join(draw.choices("abc", k=draw.randrange(most - 30 if most > 12 else 0, most))) for _ in "ab")
        edits = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
        common = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
            same = a[i - 1] == b[j - 1]
            edits[i][j] = min(edits[i - 1][j] + 1, edits[i][j - 1] + 1, edits[i - 1][j - 1] + (not same))
            common[i][j] = common[i - 1][j - 1] + 1 if same else max(common[i - 1][j], common[i][j - 1])
        assert edit_distance(a, b) == edits[-1][-1] and common_subsequence(a, b) == common[-1][-1], (a, b)


@pytest.mark.parametrize(
    ("name", "said", "reference", "changes", "expected"),
    [
        ("edit_distance", "the cat", "the hat", {}, 6 / 7),
        ("edit_distance", "the cat on", "the cat", {"unit": "word"}, 2 / 3),
        ("edit_distance", "xyz", "the cat", {}, 0),
        # the .. mat are common, in order: 2 of 3 and 4 words
        ("rouge_l", "the hat mat", "the cat sat mat", {}, 4 / 7),
        ("rouge_l", "axt", "at", {"unit": "character"}, 4 / 5),
        ("rouge_l", " ", "at", {}, 0),
        ("length", "the|", "the cat", {}, 3 / 7),
        ("length", "the cat", "", {"target": 5}, 3 / 5),
        ("length", "the cat sat", "", {"target": 5}, 0),
        ("bleu", "the cat sat on the mat", "the cat sat on the mat", {}, 1),
        ("chrf", "the cat", "the cat", {}, 1),
        # 1-gram precision 2/3, 2-gram 1/2; no brevity penalty: sqrt(1/3)
        ("bleu", "the cat on", "the cat at", {"max_order": 2}, (1 / 3) ** 0.5),
        # F2 of characters alone: 3 of 4 common both ways
        ("chrf", "cats", "cath", {"char_order": 1}, 3 / 4),
    ],
)  # fmt: skip
def test_scores_against_a_reference_by_hand(
    name: str, said: str, reference: str, changes: dict[str, Any], expected: float
) -> None:
    if name in ("bleu", "chrf"):
        pytest.importorskip("sacrebleu")
    assert score(name, said, reference, **changes) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("said", "changes", "expected"),
    [
        ("abcabc", {"n": 1}, 3 / 6), ("aaaa", {"n": 2}, 2 / 3), ("cat|", {"n": 4}, 0),
        ("xx", {"n": 1, "with_prompt": True}, 1 / 2),
        ("a x", {"n": 2, "with_prompt": True}, 1 / 3), ("aaaa", {"n": 1, "scale": -2.0}, -1.5),
    ],
)  # fmt: skip
def test_repetition_by_hand(said: str, changes: dict[str, Any], expected: float) -> None:
    """Prompt `a `. With it, `a x` ends the bigrams ` a`, `a ` (said before), ` x`."""
    assert score("repetition", said.replace("b", "h"), **changes) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prompt", "said", "expected"),
    [
        ("a ", "the xat ", 3 / 8), ("a ", "cat's hat ", 8 / 10), ("a ", "the ma", 5 / 6), ("a ", "the maz", 3 / 7),
        ("the c", "at xy ", 2 / 6), ("the x", "at the ", 3 / 7), ("the", " cat|", 3 / 4), ("a", "    ", 0), ("a", "|", 0),
    ],
)  # fmt: skip
def test_lexicon_by_hand(prompt: str, said: str, expected: float) -> None:
    """A word cut at the end counts as begun; one begun in the prompt counts with its own characters; spaces count as none."""
    assert score("lexicon", said, prompt=prompt) == pytest.approx(expected)


def test_language_model_pays_the_log_probability_of_each_token() -> None:
    """Guards the context (prompt and what was said, not padding), the floor, the stop token, and the mean at the end."""
    said = episodes(["the c", ""], ["at |", "xx"], ["", ""])
    per_token = build("language_model", order=3, floor=-4.0)
    reward_BH = per_token.judge(said)
    rows = torch.tensor([ids("the cat |")]), torch.tensor([ids("xx")])
    for row, log_T, skip in zip(reward_BH, rows, (5, 0), strict=True):
        expected = per_token.model.log_probabilities(log_T.numpy())[0, skip:].clip(-4.0)  # type: ignore[attr-defined]
        assert row[: len(expected)].tolist() == pytest.approx(expected.tolist()) and not row[len(expected) :].any()
    assert float(reward_BH[0, :2].max()) > -0.7 and float(reward_BH[0, 3]) == -4.0  # the stop token never stood there
    whole = build("language_model", order=3, floor=-4.0, per_token=False).judge(said)
    torch.testing.assert_close(whole[:, -1] + whole[:, 1], reward_BH.sum(1) / torch.tensor([4, 2]))
    shifted = build("language_model", order=3, floor=-4.0, offset=1.5, scale=2.0)
    completion_BH = torch.arange(4) < torch.tensor([[4], [2]])
    torch.testing.assert_close(shifted.judge(said), torch.where(completion_BH, 2.0 * (reward_BH + 1.5), 0.0))
    assert shifted.bounds == (-5.0, 3.0)


def test_real_text_is_fluent_and_noise_is_not() -> None:
    """Guards a weight of the wrong sign in the shipped mixture: the training text, shuffled words of it, and noise, in order."""
    draw = random.Random(1)
    text = TRAINING[:40]
    noise = "".join(draw.choices(TOKENS.characters, k=40))
    fluency = build("fluency")
    rows = fluency.judge(episodes([". "] * 3, [text, noise, "the " * 10], [""] * 3)).sum(1)
    assert rows[0] > rows[2] > rows[1]
    assert set(fluency.parts()) == {"language_model", "lexicon", "repetition"}


WHOLE = {path.stem for path in (CONFIGS / "reward").glob("*.yaml") if "\nincrements:" in path.read_text()}


@pytest.mark.parametrize("name", sorted(WHOLE - {"function", "classifier", "causal_model"}))  # these need a file
def test_increments_sum_to_the_score(name: str) -> None:
    """For every reward of whole texts: true and false pay the same in all."""
    if name in ("bleu", "chrf"):
        pytest.importorskip("sacrebleu")
    said = episodes(["the c", "a "], ["at sat|", "the rat the"], ["at on the mat", "rat sat"])
    whole, added = build(name).judge(said), build(name, increments=True).judge(said)
    torch.testing.assert_close(added.sum(1), whole.sum(1))
    assert int((whole != 0).sum()) <= 2 < int((added != 0).sum()) or not whole.any()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("chrf", {"scale": 0.0}, "reward.scale is 0"),
        ("rouge_l", {"clip": 0.0}, "reward.clip is 0"),
        ("bleu", {"max_order": 0}, "reward.max_order is 0"),
        ("chrf", {"char_order": 0}, "reward.char_order is 0"),
        ("language_model", {"floor": 0.0}, "reward.floor is 0"),
        ("language_model", {"order": 7}, "reward.order is 7"),
        ("repetition", {"n": 0}, "reward.n is 0"),
        ("length", {"target": 0}, "reward.target is 0"),
        ("function", {}, "reward.path=FILE.py:FUNCTION"),
        ("classifier", {}, "reward.name_or_path"),
        ("causal_model", {}, "reward.name_or_path"),
        ("causal_model", {"floor": 1.0}, "reward.floor is 1"),
    ],
)
def test_refused_settings(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(name, **changes)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reference, no training text, no letters, no sacrebleu: what to use, leave out, or install."""
    with pytest.raises(UserError, match="reward=language_model or reward=function"):
        score("edit_distance", "the")
    with pytest.raises(UserError, match="leave --data-path out"):
        Lexicon(9, TOKENS, None, torch.zeros(0), scale=1.0, clip=None, increments=False)
    with pytest.raises(UserError, match="no letters"):
        Lexicon(9, TOKENS, None, TOKENS.encode(". , "), scale=1.0, clip=None, increments=False)
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"pip install 'dqnlm\[text\]'"):
        build("chrf")


def test_classifier(tmp_path: Path) -> None:
    """A tiny model with random weights: the reward is what the library itself says of prompt and completion, in batches."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "a"]))
    words = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                                initializer_range=0.7, label2id={"bad": 0, "good": 1}, id2label={0: "bad", 1: "good"})
    ).eval()  # fmt: skip
    words.save_pretrained(folder), model.save_pretrained(folder)
    said = ["the cat sat", "sat on|", "cat cat"]
    found = build("classifier", name_or_path=str(folder), label="good", batch_size=2).judge(
        episodes(["a "] * 3, said, [""] * 3)
    )
    with torch.no_grad():
        expected = [
            float(model(**words(f"a {text.rstrip('|')}", return_tensors="pt")).logits.softmax(1)[0, 1]) for text in said
        ]
    assert found.sum(1).tolist() == pytest.approx(expected, abs=1e-5) and max(expected) - min(expected) > 0.01
    with pytest.raises(UserError, match="no such label; it has: bad, good"):
        build("classifier", name_or_path=str(folder), label="best")
    with pytest.raises(UserError, match="no sequence classifier"):
        build("classifier", name_or_path=str(tmp_path))


def test_causal_model(tmp_path: Path) -> None:
    """A tiny model with random weights: the mean over the completion of what the library says of each token by itself.

    Bug: the prompt's tokens counted, padding read, the wrong token's probability, an empty text that is the likeliest.
    """
    transformers = pytest.importorskip("transformers")
    pretrained_models.tiny_gpt2.write_model(
        tmp_path / "gpt", "thecasonmr. ", layers=1, heads=2, width=16, positions=12
    )
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "gpt")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "gpt").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path / "gpt")
    begin = words.bos_token_id if words.bos_token_id is not None else words.eos_token_id
    if begin is None:
        with pytest.raises(UserError, match="names no token that a text begins with"):
            build("causal_model", name_or_path=str(tmp_path / "gpt"), max_tokens=12)
        words.eos_token = words.convert_ids_to_tokens(0)
        words.save_pretrained(tmp_path / "gpt")
        pretrained.loaded.cache_clear()
        begin = 0
    prompts, said = ["a ", "the cat sat on the", ""], ["cat|", "on a", "|"]
    reward = build("causal_model", name_or_path=str(tmp_path / "gpt"), max_tokens=12, batch_size=2, floor=-4.0)
    found = reward.judge(episodes(prompts, said, [""] * 3)).sum(1).tolist()
    for prompt, text, mean in list(zip(prompts, said, found, strict=True))[:2]:
        tokens = words(text.rstrip("|"), add_special_tokens=False).input_ids
        before = [begin, *words(prompt, add_special_tokens=False).input_ids][-(12 - len(tokens)) :]
        logs = []
        for number, token in enumerate(tokens):
            with torch.no_grad():
                logit_A = model(torch.tensor([before + tokens[:number]])).logits[0, -1]
            logs.append(max(float(logit_A.log_softmax(-1)[token]), -4.0))
        assert mean == pytest.approx(sum(logs) / len(logs), abs=1e-4)
    assert found[2] == -4.0 and found[0] != found[1]
    with pytest.raises(UserError, match="this model reads 12"):
        build("causal_model", name_or_path=str(tmp_path / "gpt"))
    with pytest.raises(UserError, match="no causal language model"):
        build("causal_model", name_or_path=str(tmp_path))


def test_every_option_is_described_and_composes() -> None:
    """Guards a YAML key that no parameter reads, and a file without its line in `dqnlm configs reward`."""
    for path in (CONFIGS / "reward").glob("*.yaml"):
        assert path.read_text().startswith(f"# {path.stem}: "), path
        composed, choices = composition.compose([f"reward={path.stem}"])
        validation.validate(composed, choices, [f"reward={path.stem}"])


def test_a_text_reward_from_outside_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """One Python file and one YAML, as in the README; its part of a mixture is logged, and a run of `reward=fluency` too."""
    (tmp_path / "outside_rewards.py").write_text(
        "from dqnlm.rewards.text import TextReward\n\n\nclass Vowels(TextReward):\n"
        "    def __init__(self, num_actions, tokenizer, eos_id, *, scale: float, clip: float | None, increments: bool,\n"
        "                 of: str):\n"
        "        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)\n"
        "        self.of = of\n\n"
        "    def score(self, prompts, completions, references):\n"
        "        return [sum(c in self.of for c in text) / max(len(text), 1) for text in completions]\n"
    )
    (tmp_path / "options" / "reward").mkdir(parents=True)
    (tmp_path / "options" / "reward" / "vowels.yaml").write_text(
        "# vowels: a test\n_target_: outside_rewards.Vowels\nof: ae\nscale: 1.0\nclip: null\nincrements: true\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = tools.write_text(tmp_path / "text.txt")
    common = ["env.transition=free", "env.prompt_length=4", "trainer.rollouts=2", "evaluation.best_metric=eval/return"]
    for number, overrides in enumerate((
        ["--config-dir", "options", "reward=vowels", "reward.of=e", "+allow_targets=[outside_rewards]"],
        ["reward=fluency", "env.stop_token=e"],
    )):  # fmt: skip
        flags, rest = [o for o in overrides if "=" not in o], [o for o in overrides if "=" in o]
        argv = ["train", *flags, *tools.tiny(text, *common, *rest), f"hydra.run.dir={tmp_path}/{number}"]
        assert cli.main(argv) == 0, capfd.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "1" / "metrics.jsonl").read_text().splitlines()]
    logged = {key for line in lines for key in line if key.startswith("reward/")}
    assert {"reward/language_model", "reward/lexicon", "reward/repetition"} <= logged
    assert all(-10 <= line["reward/language_model"] < 0 for line in lines if "reward/language_model" in line)
    vowels = [json.loads(line) for line in (tmp_path / "0" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["rollout/return"] < 1 for line in vowels if "rollout/return" in line)
    assert any(line.get("eval/return_best_constant") == 1.0 for line in vowels)
