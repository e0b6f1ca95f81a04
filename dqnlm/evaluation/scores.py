"""Corpus metrics of answers against references, through `sacrebleu`.

eval/chrf          chrF2, 0 to 100 (Popovic 2015)
eval/bleu          BLEU, 0 to 100, sacreBLEU's own tokenization 13a (Papineni et al. 2002; Post 2018)
eval/length_ratio  characters of all answers over characters of all references
eval/distinct_2    different pairs of words over all pairs of words (Li et al. 2016), and of the references for comparison
"""

from __future__ import annotations

from dqnlm.errors import UserError
from dqnlm.evaluation.diversity import distinct_share
from dqnlm.metrics import Metrics


def scores(answers: list[str], references: list[str]) -> tuple[Metrics, dict[str, str]]:
    """The metrics of the module's text, and sacreBLEU's signature of each.

    Raises:
        UserError: `sacrebleu` is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ModuleNotFoundError as error:
        raise UserError("scoring answers needs the package sacrebleu: pip install 'dqnlm[text]'") from error
    metrics, signatures = {}, {}
    for name, metric in (("chrf", CHRF()), ("bleu", BLEU(force=True))):  # force: no warning at each evaluation
        metrics[f"eval/{name}"] = float(metric.corpus_score(answers, [references]).score)
        signatures[name] = str(metric.get_signature())
    metrics["eval/length_ratio"] = sum(map(len, answers)) / max(sum(map(len, references)), 1)
    metrics["eval/distinct_2"] = distinct_words(answers)
    metrics["eval/distinct_2_references"] = distinct_words(references)
    return metrics, signatures


def distinct_words(texts: list[str]) -> float:
    """distinct-2 of words at white space, over all texts together."""
    number: dict[str, int] = {}
    return distinct_share([[number.setdefault(word, len(number)) for word in text.split()] for text in texts], 2)
