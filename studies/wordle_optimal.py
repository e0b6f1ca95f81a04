#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""How well Wordle can be played with a list: the mean return over all secret words of one searching player.

At each point the player tries the WIDTH guesses that divide the words that still fit best, plays each out exactly, and
keeps the best (see `dqnlm.problems.wordle_players.Searcher`). What one player reaches is a lower bound of the optimum; with
`--width all` no guess is left out, so the bound is the optimum itself.

    scripts/python studies/wordle_optimal.py --words auto --width 1 10 all
"""

from __future__ import annotations

import argparse
import sys
import time

from tqdm import tqdm

from dqnlm.errors import UserError
from dqnlm.problems import wordle, wordle_players, wordle_words


def main(argv: list[str]) -> int:
    """Prints the mean return of blind guessing and of the searcher at each width. Returns the exit code: 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", default="auto", help="auto, bundled, or a file with one word a line (default: auto)")
    parser.add_argument("--width", nargs="+", default=["1", "10"], help="guesses tried at each point: numbers, or all")
    arguments = parser.parse_args(argv)
    try:
        known = wordle_words.word_list(arguments.words)
        widths = [_width(text, len(known.words)) for text in arguments.width]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    blind = wordle_players.random_return(len(known.words), wordle.TRIES)
    print(f"{known.origin}; any word at each try: {blind:.4f}")
    for width in widths:
        started, bar = time.perf_counter(), tqdm(desc=f"width {width}, first guesses", total=width, disable=None)
        found = wordle_players.Searcher(known.words, width).mean_return(lambda *_, bar=bar: bar.update())
        bar.close()
        exact = " (every guess tried: the optimum)" if width == len(known.words) else " (the optimum is at least this)"
        print(f"width {width:>4}: {found:.4f}{exact}, {time.perf_counter() - started:.1f} s")
    return 0


def _width(text: str, words: int) -> int:
    """Raises UserError for what is no number of guesses."""
    if text != "all" and not (text.isdecimal() and int(text) >= 1):
        raise UserError(f"--width {text}: give a number of guesses from 1, or all")
    return words if text == "all" else min(int(text), words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
