"""The bundled corpus: deterministic, in the form of tiny Shakespeare, and worth learning from."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

import pytest

from dqnlm.data.text import bundled, bundled_words, sources
from dqnlm.data.text.bundled import Word
from dqnlm.errors import UserError

TEXT = bundled.write_plays(60_000, 3)
SPEECHES = TEXT.split("\n\n")[:-1]  # the last may be cut


def test_the_text_of_seed_0_is_pinned() -> None:
    """Guards determinism across machines, processes and versions: a changed text makes old figures incomparable."""
    digest = hashlib.sha256(bundled.write_plays(10_000, 0).encode()).hexdigest()
    assert digest == "6e63e77ead2e36c5c5419d56a497429bbdc309d19ca06ce93cdf8956b23315d6"


def test_length_and_prefix() -> None:
    """Guards `characters`: exact, and a shorter text is the beginning of a longer one."""
    for length in (0, 1, 999, 25_000):
        text = bundled.write_plays(length, 3)
        assert len(text) == length and TEXT.startswith(text)


def test_seeds_differ() -> None:
    """Guards the seed against being ignored, and -1, which Python's generator takes for 1, against being accepted."""
    assert bundled.write_plays(500, 0) != bundled.write_plays(500, 1)
    with pytest.raises(UserError, match="seed"):
        sources.bundled(characters=500, seed=-1)
    with pytest.raises(UserError, match="characters"):
        sources.bundled(characters=0, seed=0)


def test_form_of_a_speech() -> None:
    """Guards the format: a label and a colon, then capitalised lines without stray blanks; a speech ends a sentence."""
    for speech in SPEECHES:
        label, *lines = speech.split("\n")
        assert re.fullmatch(r"[A-Z][A-Za-z' -]+:", label), label
        assert lines and lines[-1][-1] in ".!?"
        for line in lines:
            assert re.fullmatch(r"'?[A-Z][A-Za-z',.;:!? -]*[A-Za-z,.;:!?]", line), line
            assert "  " not in line and not re.search(r" [,.;:!?]", line)


def test_lines_have_8_to_11_syllables() -> None:
    """Guards the verse, counted by the lexicon: every line but a speech's last, and almost all of those."""
    syllables: dict[str, int] = {}
    for group in bundled._lexicon().values():
        syllables |= {word.text.lower(): word.syllables for word in group}
    for alternatives in bundled._rules().values():
        for items in alternatives:
            syllables |= {item.text.lower(): item.syllables for item in items if isinstance(item, Word)}
    syllables["an"] = 1

    def count(line: str) -> int:
        return sum(syllables[word.lower()] for word in re.findall(r"[A-Za-z'-]+", line))

    speeches = [speech.split("\n")[1:] for speech in SPEECHES]
    assert all(8 <= count(line) <= 11 for lines in speeches for line in lines[:-1])
    lasts = [count(lines[-1]) for lines in speeches]
    assert max(lasts) <= 11 and sum(last >= 8 for last in lasts) > 0.9 * len(lasts)


def test_agreement() -> None:
    """Guards the grammar: pronouns, verbs and articles agree, so that there is structure to learn."""
    lower = TEXT.replace("\n", " ").lower()
    assert set(re.findall(r"\bthou (?:dost|hast) \w+ (my|thy|his|her|our)\b", lower)) == {"thy"}
    assert not re.search(r"\bthou (is|are|am|have|will|do)\b|\bi (is|are|hath|art)\b", lower)
    singular = re.findall(r"\bthis (\w+)", lower)
    plural = re.findall(r"\bthese \w+ (\w+)", lower)
    assert len(singular) > 20 and len(plural) > 20
    assert all(noun.endswith("s") or noun in bundled_words.IRREGULAR_PLURALS.values() for noun in plural)
    assert not any(noun in bundled_words.IRREGULAR_PLURALS.values() for noun in singular)
    assert not re.search(r"\ba [aeiou]", lower)
    assert not re.search(r"\ban [bcdfgjklmnpqrstvwxyz]", lower)


def test_a_question_is_answered() -> None:
    """Guards the structure across speeches: within a scene an asked question begins the next speech with a reply."""
    openings = {"Ay", "No", "Nay", "'Tis", "I", "So", "Never"}
    answered = total = 0
    for speech, following in pairwise(SPEECHES):
        if speech.endswith("?"):
            total += 1
            answered += re.split(r"[ ,]", following.split("\n")[1])[0] in openings
    assert total > 50 and answered > 0.85 * total  # the rest are last words of a scene


def test_vocabulary_is_varied() -> None:
    """Guards against a text of a few stock phrases."""
    assert len(set(re.findall(r"[a-z'-]+", TEXT.lower()))) > 800
    lines = [line for speech in SPEECHES for line in speech.split("\n")[1:]]
    assert len(set(lines)) > 0.97 * len(lines)


def test_a_rule_without_a_meaning_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the rules: a misspelt name would otherwise stand in the text in capitals."""
    monkeypatch.setattr(bundled_words, "RULES", "SENTENCE: the NUON .")
    with pytest.raises(ValueError, match="NUON"):
        bundled._rules.__wrapped__()
