"""`dqnlm eval RUN`: all figures of a run's policy, on its held-out text or on any other."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqnlm.data.corpora import Corpus
    from dqnlm.policy import Policy


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dqnlm eval", description="Scores a run's policy on held-out text.")
    parser.add_argument("run", help="a run's folder, `latest`, or a unique prefix of its name")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a step (default: best)")
    parser.add_argument("--data-path", metavar="FILE", help="score this whole text instead of the held-out part")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument(
        "--allow-targets", action="append", default=[], metavar="MODULE", help="permit code of the run outside dqnlm"
    )
    parser.add_argument("--output-dir", default="outputs", help="where runs are (default: outputs)")
    return parser


def main(argv: list[str]) -> int:
    """Prints the table (or JSON) and two samples."""
    arguments = _parser().parse_args(argv)

    from dqnlm.loading import load_policy_and_config

    policy, config = load_policy_and_config(
        arguments.run, arguments.checkpoint, arguments.output_dir, arguments.device, arguments.allow_targets
    )
    corpus = _corpus(policy, config, arguments)
    figures, rest = _evaluate(policy, config, corpus)
    if arguments.json:
        print(json.dumps({"step": policy.step, "checkpoint": arguments.checkpoint} | figures))
        return 0
    _print(policy, corpus, figures, rest, arguments)
    return 0


def _corpus(policy: Policy, config: dict[str, Any], arguments: argparse.Namespace) -> Corpus:
    """The run's own text, or the given file read with the run's tokenizer.

    Raises:
        UserError: the run's text is not the one it was trained on, or there is none.
    """
    from dqnlm import assembly
    from dqnlm.data.corpora import build_corpus
    from dqnlm.data.sources import text_file
    from dqnlm.errors import UserError
    from dqnlm.run_directory import RunDirectory, find_run

    if arguments.data_path is not None:
        corpus = build_corpus(text_file(path=arguments.data_path), "character", 1.0, policy.tokenizer)
        corpus.require_tokens(policy.network.context + 1, "one window of the network")
        return corpus
    corpus = assembly.build_corpus(config)
    manifest = json.loads(RunDirectory(find_run(arguments.run, arguments.output_dir)).manifest.read_text())
    if corpus.fingerprint() != manifest["data"]["fingerprint"]:
        raise UserError(
            f"the text that is found now ({corpus.source.origin}) is another text, or has another vocabulary, than the one "
            "this run was trained on; put that text back (DQNLM_DATA_DIR for tiny Shakespeare), or score another one with "
            "--data-path FILE"
        )
    return corpus


def _evaluate(policy: Policy, config: dict[str, Any], corpus: Corpus) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures, and what the table shows beside them."""
    from dqnlm import assembly
    from dqnlm.data.baselines import baselines

    reference = corpus.train_ids if len(corpus.train_ids) else corpus.heldout_ids
    evaluator = assembly.build_evaluator(config, corpus, policy.device)
    evaluation = evaluator.evaluate(policy)
    beside = {
        "baselines": baselines(reference, corpus.heldout_ids, policy.tokenizer.vocabulary_size),
        "constant": repr(policy.tokenizer.decode([evaluator.best_constant()[1]])),
        "samples": evaluation.samples,
    }
    return evaluation.figures, beside


def _print(
    policy: Policy, corpus: Corpus, figures: dict[str, float], rest: dict[str, Any], arguments: argparse.Namespace
) -> None:
    from rich.console import Console

    from dqnlm.console import evaluation_table

    console = Console(highlight=False)
    console.print(
        f"{arguments.run}, checkpoint {arguments.checkpoint} (step {policy.step}), on {_what(corpus, arguments.data_path)}"
    )
    if corpus.heldout_unknown:
        console.print(
            f"{corpus.heldout_unknown} characters are unknown to the run: counted as misses, left out of nats"
        )
    name = "softmax(Q/T)" if policy.declared == "boltzmann" else "Q normalised"
    if arguments.data_path is not None:
        console.print("unigram and bigram are counted on this very text: they know what they are asked")
    console.print(evaluation_table(figures, rest["baselines"], name, rest["constant"], policy.step, "whole text"))
    for _, text in rest["samples"][:2]:
        console.rule("sample")
        console.print(text, markup=False)


def _what(corpus: Corpus, path: str | None) -> str:
    return f"{Path(path).name if path else corpus.source.name}, {len(corpus.heldout_ids):,} tokens"
