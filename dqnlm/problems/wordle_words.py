"""Word lists of Wordle: the bundled one, that of the data folder, or a user's file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from dqnlm.errors import UserError
from dqnlm.problems.wordle import LENGTH, LETTERS
from dqnlm.utils.encoding import text_of
from dqnlm.utils.files import require_regular

DATA_FILE = Path("wordle") / "words_430.txt"  # below $DQNLM_DATA_DIR: the vocabulary of LMRL-Gym
AUTO, BUNDLED = "auto", "bundled"

# Common English words, written down for this program.
_TEXT = """
above actor after agree alarm album alive angle apple arrow badge baker basic beach begin bench birth black blame blend
block board brain brave bread brick bring broad brown brush build cabin candy carry catch chain chair chalk charm cheap
chess child clean clear clerk clock close cloth cloud coast count cover craft crane cream crowd crown curve daily dance
depth dirty doubt dozen draft dream dress drink drive eagle early earth empty enemy enjoy enter equal error event exact
extra fable faith false fancy fault favor feast fence fever field fight final flame flash fleet float floor flour fresh
front fruit ghost giant glass globe grain grand grape grass great green group guard guess guide habit happy heart heavy
honey horse hotel house human humor ideal image index issue jelly jewel joint judge juice knife known label large laugh
layer learn lemon level light limit liver local lucky lunch magic major march match mayor metal model money month moral
motor mount mouse mouth movie music nerve night noise north novel nurse ocean offer onion order other paint panel paper
party peace phone piano piece pilot place plain plant plate point pound power press price pride proud queen quick quiet
radio raise range rapid ready right river robot round route rural salad scale scene score sense serve shape share sheep
shelf shirt shoot short skill sleep small smart smile smoke snake solid sound south space spoon sport stage stand steam
"""
WORDS = tuple(_TEXT.split())


class WordList(NamedTuple):
    """Distinct words of five letters, and their source."""

    words: tuple[str, ...]
    origin: str


def word_list(option: str) -> WordList:
    """Loads the list named by an option.

    Args:
        option: `auto` for the data folder's list where it is there, else the bundled one; `bundled`; or a file with one
            word a line.

    Raises:
        UserError: no such file, or a line that is no word of five letters a-z, or one that was there before.
    """
    if option == BUNDLED:
        return WordList(WORDS, f"the {len(WORDS)} words that come with dqnlm")
    if option != AUTO:
        return read(Path(option).expanduser())
    folder = os.environ.get("DQNLM_DATA_DIR")
    if folder and (Path(folder) / DATA_FILE).is_file():
        return read(Path(folder) / DATA_FILE)
    return word_list(BUNDLED)


def read(file: Path) -> WordList:
    """Reads the words of a file, one a line, skipping blank lines. Raises UserError as `word_list`."""
    require_regular(file)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(
            f"words={file} cannot be read: {error.strerror}; name a file with one word a line, or use words={AUTO} or {BUNDLED}"
        ) from None
    text, _ = text_of(data, file, "words")
    lines = text.splitlines()
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        word = line.strip()
        if not word:
            continue
        if len(word) != LENGTH or not set(word) <= set(LETTERS):
            raise UserError(
                f"{file}, line {number}: {word!r} is no word of {LENGTH} letters a-z; correct it or drop it"
            )
        if word in found:
            raise UserError(f"{file}, line {number}: {word!r} stands in line {found[word]} already; drop one of them")
        found[word] = number
    if len(found) < 2:
        raise UserError(f"{file} has {len(found)} words; there must be at least 2 to guess among")
    return WordList(tuple(found), f"{len(found)} words of {file}")
