"""`dqnlm eval RUN`: all figures of a run's policy, on its held-out text or on any other."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqnlm.commands.run_arguments import add_run_arguments

if TYPE_CHECKING:
    from rich.table import Table

    from dqnlm.agent.policy import Policy
    from dqnlm.builder.task_assembly import Data
    from dqnlm.data.text.corpora import Corpus


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm eval", description="Scores a run's policy on held-out text, or on greedy episodes."
    )
    add_run_arguments(parser)
    parser.add_argument("--data-path", metavar="FILE", help="score this whole text instead of the held-out part")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument(
        "--beam", type=int, default=1, help="answers to prompts: hypotheses of a beam search (default: 1, greedy)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        help="answers to prompts: drawn from softmax(Q / T), T in return units (default: greedy)",
    )
    parser.add_argument("--seed", type=int, help="of the drawn answers (default: 0)")
    parser.add_argument("--save", metavar="FILE", help="answers to prompts: write all of them to this JSONL file")
    parser.add_argument(
        "--split", choices=("test", "heldout", "train"), help="answers to prompts: which part (default: test)"
    )
    return parser


def main(argv: list[str]) -> int:
    """Prints the table (or JSON) and two samples."""
    arguments = _parser().parse_args(argv)

    from dqnlm.builder import agent, evaluators
    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.data.pairs.dataset import Pairs
    from dqnlm.data.text.corpora import Corpus
    from dqnlm.errors import UserError

    policy, config = load_policy_and_config(
        arguments.run, arguments.checkpoint, arguments.output_dir, arguments.device, arguments.allow_targets
    )
    if arguments.data_path is not None and "heldout_path" in config["data"]:
        raise UserError(
            "--data-path is for runs on a text; this one is scored on the rows that its log holds out: leave it out"
        )
    if arguments.data_path is not None and "max_tokens" in config["data"]:
        raise UserError(
            "--data-path is for runs on a text; this one answers prompts: choose its part of the data with --split"
        )
    data = _data(policy, config, arguments)
    if isinstance(data, Pairs):
        from dqnlm.commands.evaluate_answers import evaluate_answers

        return evaluate_answers(policy, config, data, arguments)
    of_answers = (arguments.split, arguments.temperature, arguments.seed, arguments.save)
    if arguments.beam != 1 or any(given is not None for given in of_answers):
        raise UserError(
            "--beam, --temperature, --seed, --save and --split are for runs that answer prompts (env=translation); leave them out"
        )
    objectives = agent.objectives_without_env(config, policy.head)
    evaluator = evaluators.build_evaluator(config, data, policy.device, objectives)
    evaluation = evaluator.evaluate(policy)
    if arguments.json:
        print(json.dumps({"step": policy.step, "checkpoint": arguments.checkpoint} | evaluation.figures))
        return 0
    done = "whole text" if isinstance(data, Corpus) else _episodes(data)
    _print(data, evaluator.table(evaluation, policy, policy.step, done), evaluation.samples, policy.step, arguments)
    return 0


def _data(policy: Policy, config: dict[str, Any], arguments: argparse.Namespace) -> Data:
    """The run's own data, or the given file read with the run's tokenizer.

    Raises:
        UserError: the run's data is not what it was trained on, there is none, or a text is given to a run without one.
    """
    from dqnlm.builder import task_assembly
    from dqnlm.config.selected import option_name
    from dqnlm.data.text.corpora import build_corpus
    from dqnlm.data.text.sources import text_file
    from dqnlm.errors import UserError
    from dqnlm.runs.directory import RunDirectory, find_run

    if arguments.data_path is not None:
        if "tokenizer" not in config["data"]:
            raise UserError(f"--data-path: this run plays env={option_name(config, 'env')}, not a text; leave it out")
        corpus = build_corpus(text_file(path=arguments.data_path), "character", 1.0, policy.tokenizer)
        corpus.require_tokens(policy.network.context + 1, "one window of the network")
        return corpus
    data = task_assembly.build_data(config)
    manifest = json.loads(RunDirectory(find_run(arguments.run, arguments.output_dir)).manifest.read_text())
    if data.fingerprint() != manifest["data"]["fingerprint"]:
        raise UserError(
            f"the data that is found now ({data.source.origin}) is another, or has another vocabulary, than this run was "
            "trained on; put it back (DQNLM_DATA_DIR for tiny Shakespeare), or score another text with --data-path FILE"
        )
    return data


def _print(data: Data, table: Table, samples: list[tuple[str, str]], step: int, arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from dqnlm.data.text.corpora import Corpus

    console = Console(highlight=False)
    on = _what(data, arguments.data_path) if isinstance(data, Corpus) else _episodes(data)
    console.print(f"{arguments.run}, checkpoint {arguments.checkpoint} (step {step}), on {on}")
    if isinstance(data, Corpus) and data.heldout_unknown:
        console.print(f"{data.heldout_unknown} characters are unknown to the run: counted as misses, left out of nats")
    if arguments.data_path is not None:
        console.print("unigram and bigram are counted on this very text: they know what they are asked")
    console.print(table)
    for prompt, text in samples[:2]:
        console.rule("sample")
        console.print(text if isinstance(data, Corpus) else prompt + text, markup=False)


def _episodes(data: Data) -> str:
    """What a run without a text is scored on."""
    from dqnlm.data.trajectories.log import Log

    return f"{len(data.heldout):,} held-out rows" if isinstance(data, Log) else "greedy episodes"


def _what(corpus: Corpus, path: str | None) -> str:
    return f"{Path(path).name if path else corpus.source.name}, {len(corpus.heldout_ids):,} tokens"
