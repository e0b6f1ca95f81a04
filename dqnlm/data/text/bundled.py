"""Verse plays from a probabilistic grammar: a training text that needs neither a file nor the network.

The same form as tiny Shakespeare: a speaker's name and a colon, a line break, verse lines of 8 to 11 syllables, a blank
line. What a model can learn from it, from short to long range: spelling and inflection; agreement of subject, verb and pronoun
(thou ... thy, she ... her); punctuation; a question is answered; the speakers of a scene call each other by name; each
scene returns to its own few words and its place.

The same seed gives the same text on every machine: the only source of chance is `random.Random(seed).random()`, whose
sequence Python guarantees. A shorter text is the beginning of a longer one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from dqnlm.data.text import bundled_words as words

_LEAST_SYLLABLES, _MOST_SYLLABLES = 8, 11
_USUAL_SYLLABLES = 10
_FITTING_TRIES = 12  # sentences tried so that a speech ends with a full line
_FAVOURITES = 7  # words of a kind that a scene returns to
_FAVOURITE_SHARE = 0.5
_PUNCTUATION = frozenset(".,;:!?")
_SENTENCE_ENDS = frozenset(".!?")
_CLINGING = frozenset(words.CLINGING.split())

T = TypeVar("T")


class Word(NamedTuple):
    """A word or a punctuation mark, with its number of syllables."""

    text: str
    syllables: int


Item = Word | str  # a word, or the name of a rule or word group
Lexicon = dict[str, list[Word]]


class Person(NamedTuple):
    """A character of a play: the label before a speech, the forms of address, and the word group."""

    label: str
    called: Word
    group: str


def write_plays(characters: int, seed: int) -> str:
    """Writes plays of exactly that many characters.

    Args:
        characters: length of the text; the end may cut a word.
        seed: an integer from 0; each gives another text.
    """
    writer = _Writer(random.Random(seed).random)
    pieces: list[str] = []
    length = 0
    while length < characters:
        scene = writer.scene()
        pieces.append(scene)
        length += len(scene)
    return "".join(pieces)[:characters]


class _Writer:
    """Generates scene after scene, a new play every dozen or so."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._rules = _rules()
        self._lexicon = _lexicon()
        self._near: Lexicon = {}
        self._cast: list[Person] = []
        self._scenes_left = 0

    def scene(self) -> str:
        """One conversation of two to four speakers, with its blank lines."""
        if self._scenes_left == 0:
            self._cast = self._new_cast()
            self._scenes_left = 8 + self._below(9)
        self._scenes_left -= 1
        speakers = self._sample(self._cast, 2 + self._below(3))
        favourites = {kind: self._sample(group, _FAVOURITES) for kind, group in self._lexicon.items()}
        favourites["PLACE"] = favourites["PLACE"][:2]
        speeches, previous, asked = [], None, False
        for turn in range(6 + self._below(16)):
            speaker = self._pick([person for person in speakers if person is not previous])
            others = [person.called for person in speakers if person is not speaker and person.group == "MAN"]
            women = [person.called for person in speakers if person is not speaker and person.group == "WOMAN"]
            self._near = favourites | {"MAN": others or favourites["MAN"], "WOMAN": women or favourites["WOMAN"]}
            opening = "GREETING" if turn == 0 else "REPLY" if asked else "SENTENCE"
            lines, asked = self._speech(opening)
            speeches.append(f"{speaker.label}:\n{lines}\n\n")
            previous = speaker
        return "".join(speeches)

    def _speech(self, opening: str) -> tuple[str, bool]:
        """Verse lines, and whether the speech ends with a question."""
        wanted = _USUAL_SYLLABLES * (1 + int(9 * self._chance() ** 2)) - _USUAL_SYLLABLES // 2
        spoken = self._sentence(opening)
        while sum(word.syllables for word in spoken) < wanted:
            spoken += self._sentence("SENTENCE")
        if self._chance() < 0.3:
            spoken += self._sentence("QUESTION")
        asks = spoken[-1].text == "?"
        lines, rest = _verse(spoken)
        for _ in range(_FITTING_TRIES):
            if _syllables(rest) >= _LEAST_SYLLABLES:
                break
            more, longer_rest = _verse(rest + self._sentence("QUESTION" if asks else "SENTENCE"))
            if _syllables(longer_rest) >= _LEAST_SYLLABLES:
                lines, rest = lines + more, longer_rest
        return "\n".join(_written(line) for line in [*lines, rest]), asks

    def _sentence(self, symbol: str) -> list[Word]:
        """A sentence or two, with capitals at their starts and "an" before a vowel."""
        out: list[Word] = []
        self._expand(symbol, out)
        before = "."
        for i, word in enumerate(out):
            if word.text == "a" and _sounds_like_vowel(out[i + 1].text):
                out[i] = word = Word("an", word.syllables)
            if before in _SENTENCE_ENDS:
                out[i] = Word(_capital(word.text), word.syllables)
            before = word.text
        return out

    def _expand(self, symbol: str, out: list[Word]) -> None:
        for item in self._pick(self._rules[symbol]):
            if isinstance(item, Word):
                out.append(item)
            elif item in self._rules:
                self._expand(item, out)
            else:
                source = self._near if self._chance() < _FAVOURITE_SHARE or item in ("MAN", "WOMAN") else self._lexicon
                out.append(self._pick(source[item]))

    def _new_cast(self) -> list[Person]:
        """A cast of ten: named people with or without a title, and two or three of one trade, numbered."""
        cast = []
        for group, titles, count in (("MAN", words.TITLES_MALE, 5), ("WOMAN", words.TITLES_FEMALE, 3)):
            for called in self._sample(self._lexicon[group], count):
                label = f"{self._pick(titles)} {called.text}".strip().upper()
                cast.append(Person(label, called, group))
        trade = self._pick(words.TRADES)
        return cast + [Person(f"{ordinal} {trade}", Word("friend", 1), "") for ordinal in words.ORDINALS[:2]]

    def _below(self, n: int) -> int:
        return int(self._chance() * n)

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._chance() * len(choices))]

    def _sample(self, choices: Sequence[T], count: int) -> list[T]:
        """Distinct members, in the order in which they were drawn."""
        rest = list(choices)
        return [rest.pop(self._below(len(rest))) for _ in range(min(count, len(rest)))]


def _verse(spoken: list[Word]) -> tuple[list[list[Word]], list[Word]]:
    """Full lines of 8 to 11 syllables, and the rest, which may have fewer. Lines avoid to end with "the" or "of".
    """
    lines: list[list[Word]] = []
    line: list[Word] = []
    count = 0
    for word in spoken:
        total = count + word.syllables
        if total > _USUAL_SYLLABLES and word.syllables and not (count < _LEAST_SYLLABLES and total <= _MOST_SYLLABLES):
            start = len(line)
            while count > _LEAST_SYLLABLES and line[start - 1].text in _CLINGING:
                start -= 1
                count -= line[start].syllables
            lines.append(line[:start])
            line = line[start:]
            total = _syllables(line) + word.syllables
        line.append(word)
        count = total
    return lines, line


def _syllables(line: list[Word]) -> int:
    return sum(word.syllables for word in line)


def _written(line: list[Word]) -> str:
    """A line with spaces between its words and a capital first."""
    text = ""
    for word in line:
        text += word.text if word.text in _PUNCTUATION or not text else f" {word.text}"
    return _capital(text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text[0] != "'" else "'" + text[1].upper() + text[2:]


def _sounds_like_vowel(text: str) -> bool:
    return text[0] in "aeiouAEIOU" or text in ("hour", "honest", "honour")


@cache
def _rules() -> dict[str, list[tuple[Item, ...]]]:
    """`words.RULES`, with an alternative of weight n repeated n times."""
    lexicon = _lexicon()
    text = words.RULES.replace("\n    ", " ").strip()
    bodies = dict(line.split(": ", 1) for line in text.split("\n"))
    rules: dict[str, list[tuple[Item, ...]]] = {}
    for symbol, body in bodies.items():
        rules[symbol] = []
        for alternative in body.split("|"):
            parts = alternative.split()
            times = int(parts.pop(0)) if parts[0].isdigit() else 1
            items = tuple(part if part in bodies or part in lexicon else _literal(part) for part in parts)
            rules[symbol] += [items] * times
    return rules


def _literal(part: str) -> Word:
    text, _, syllables = part.partition("~")
    if text.isupper() and len(text) > 1:
        raise ValueError(f"bundled_words.RULES names {text}, which is neither a rule nor a word group")
    return Word(text, 0 if text in _PUNCTUATION else int(syllables or 1))


@cache
def _lexicon() -> Lexicon:
    """Word groups: the listed words and their inflected forms."""
    nouns, mass = _words(words.NOUNS), _words(words.MASS)
    lexicon = {
        "NOUN": nouns,
        "NOUNS": [_plural(noun) for noun in nouns],
        "MASS": mass,
        "ADJECTIVE": _words(words.ADJECTIVES),
        "ADVERB": _words(words.ADVERBS),
        "PREPOSITION": _words(words.PREPOSITIONS),
        "MAN": _words(words.MALE),
        "WOMAN": _words(words.FEMALE),
        "PLACE": _words(words.PLACES),
    }
    for letter, verbs in (("V", words.TRANSITIVE), ("W", words.INTRANSITIVE)):
        forms = [_conjugated(verb, count) for count, group in verbs.items() for verb in group.split()]
        for form, column in zip("BZDN", zip(*forms, strict=True), strict=True):
            lexicon[letter + form] = list(column)
    return lexicon


def _words(groups: dict[int, str]) -> list[Word]:
    distinct = dict.fromkeys(_word(part, count) for count, group in groups.items() for part in group.split())
    return list(distinct)


def _word(part: str, syllables: int) -> Word:
    text, _, own = part.partition("~")
    return Word(text, int(own or syllables))


def _plural(noun: Word) -> Word:
    irregular = words.IRREGULAR_PLURALS.get(noun.text)
    if irregular is not None:
        return Word(irregular, noun.syllables + (irregular == "children"))
    return _with_s(noun)


def _with_s(word: Word) -> Word:
    """Plural of a noun, third person of a verb."""
    text, syllables = word
    if text.endswith(("s", "x", "z", "ch", "sh")):
        return Word(text + "es", syllables + 1)
    if text.endswith(("ce", "ge", "se", "ze")):
        return Word(text + "s", syllables + 1)
    if text.endswith("y") and text[-2] not in "aeiou":
        return Word(text[:-1] + "ies", syllables)
    return Word(text + "s", syllables)


def _conjugated(verb: str, syllables: int) -> tuple[Word, Word, Word, Word]:
    """Base, third person, past and participle."""
    parts = [_word(part, syllables) for part in verb.split("/")]
    base = parts[0]
    if len(parts) == 3:
        return base, _with_s(base), parts[1], parts[2]
    text = base.text
    if text.endswith("y") and text[-2] not in "aeiou":
        text = text[:-1] + "i"
    past = Word(text.removesuffix("e") + "ed", base.syllables + text.endswith(("t", "d", "te", "de")))
    return base, _with_s(base), past, past
