"""`dqnlm eval RUN`: all metrics of a run's policy, on its test part, another part of its data, or another text."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.commands.run_arguments import add_run_arguments, add_weights, parse_run_arguments, seed_number, set_weights

if TYPE_CHECKING:
    from rich.table import Table

    from dqnlm.agent.policy import Policy
    from dqnlm.runs.directory import RunDirectory
    from dqnlm.tasks.answers import AnswersTask
    from dqnlm.tasks.base import Task


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm eval", description="Scores a run's policy on held-out data, or on greedy episodes.",
        epilog=examples("dqnlm eval latest", "dqnlm eval latest --part validation", "dqnlm eval latest --data-path play.txt"),
        formatter_class=HelpFormatter,
    )
    add_run_arguments(parser)
    parser.add_argument("--data-path", metavar="FILE", help="score this whole text instead of a part of the run's data")
    parser.add_argument("--json", action="store_true", help="print the metrics as one JSON object")
    parser.add_argument(
        "--beam", type=int, default=1, help="answers to prompts: hypotheses of a beam search (default: 1, greedy)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        help="answers to prompts: drawn from softmax(Q / T), T in return units (default: greedy)",
    )
    parser.add_argument("--seed", type=seed_number, help="of the drawn answers (default: 0)")
    add_weights(parser)
    parser.add_argument("--save", metavar="FILE", help="answers to prompts: write all of them to this JSONL file")
    parser.add_argument(
        "--part",
        choices=("test", "validation", "train"),
        help="part of the data: test (the default; each look is counted), validation (what chose the best checkpoint), train "
        "(answers to prompts)",
    )
    return parser


def main(argv: list[str]) -> int:
    """Prints the table (or JSON) and two samples."""
    arguments = parse_run_arguments(_parser(), argv)

    from dqnlm.builder import agent
    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.builder.places import require_same
    from dqnlm.builder.q_semantics import learns_returns, why_q_is_not_in_reward_units
    from dqnlm.config.run_config import load_run_config
    from dqnlm.config.schema import instantiate
    from dqnlm.runs.directory import RunDirectory, find_run
    from dqnlm.tasks.select import task_class

    policy, config = load_policy_and_config(
        arguments.run, arguments.checkpoint, arguments.output_dir, arguments.device, arguments.allow_targets,
        arguments.base, arguments.places, lambda run, config: _require_files(run, config, arguments),
    )  # fmt: skip
    set_weights(policy, arguments.weights)
    kind = task_class(config)
    _refuse_options_without_meaning(kind, arguments)
    run = RunDirectory(find_run(arguments.run, arguments.output_dir))
    task = kind(config, _data(policy, config, run, arguments), policy.device)
    require_same(run, task, load_run_config(run.config), config)
    note = _choose_part(task, arguments)
    if kind.has_references:
        from dqnlm.commands.evaluate_answers import evaluate_answers

        return evaluate_answers(policy, cast("AnswersTask", task), arguments, lambda: _look(task, arguments))
    objectives = agent.objectives_without_env(config, policy.head, policy.spec.reward_names)
    no_return = why_q_is_not_in_reward_units(config, objectives)
    settings, learns = instantiate(config["evaluation"]), learns_returns(objectives)
    evaluator = task.evaluator(settings, q_is_return=no_return is None, learns_returns=learns)
    looks = _look(task, arguments)
    evaluation = evaluator.evaluate(policy)
    if arguments.json:
        about = {"step": policy.step, "checkpoint": arguments.checkpoint} | ({"part": task.part} if task.parts else {})
        about |= {"weights": policy.weights} if policy.weights else {}
        print(json.dumps(about | ({} if looks is None else {"test_looks": looks}) | evaluation.metrics))
        return 0
    table = evaluator.table(evaluation, policy, policy.step, task.scored_on())
    samples = [prompt + text if evaluator.shows_prompt else text for prompt, text in evaluation.samples[:2]]
    _print(task, table, samples, policy.step, arguments, looks, note)
    return 0


def _require_files(run: RunDirectory, config: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Raises UserError that names all files at once which are read and are not there; with --data-path not those of the data."""
    from dqnlm.builder.places import require_there
    from dqnlm.config.paths import READ

    other = [] if arguments.data_path is None else ["--data-path", arguments.data_path]
    groups = [group for group in READ if not other or group != "data"]
    command = shlex.join(["dqnlm", "eval", arguments.run, *other])
    require_there(run, config, lambda words: f"{command} {words}", groups)


def _refuse_options_without_meaning(kind: type[Task], arguments: argparse.Namespace) -> None:
    """Raises UserError for an option that has no effect for this kind of run."""
    from dqnlm.errors import UserError

    given = {"data_path": arguments.data_path, "beam": None if arguments.beam == 1 else arguments.beam}
    given |= {name: getattr(arguments, name) for name in ("temperature", "seed", "save")}
    for name, value in given.items():
        if value is not None and name not in kind.eval_options:
            option, its = f"--{name.replace('_', '-')}", sorted(f"--{o.replace('_', '-')}" for o in kind.eval_options)
            belongs = {"data_path": "continue a text"}.get(name, "answer prompts (env=translation)")
            raise UserError(
                f"{option} is for runs that {belongs}; this run's task is {kind.kind}: leave it out"
                + (f" (it has {', '.join(its)})" if its else "")
            )


def _choose_part(task: Task, arguments: argparse.Namespace) -> str | None:
    """Sets the part that is scored: the one asked for, else test; returns a note where the data has no test part.

    Raises:
        UserError: the data lacks the part that was asked for.
    """
    from dqnlm.errors import UserError

    asked, none = arguments.part, "this run has no test part (it is of an earlier version, or data.test_fraction is 0)"
    if asked is not None and arguments.data_path is not None:
        raise UserError("--part is a part of the run's own data, and --data-path another text: leave one of them out")
    if asked is not None and asked not in task.parts:
        has = f"its parts are: {', '.join(task.parts)}" if task.parts else "what it scores has no parts"
        raise UserError(
            f"--part {asked}: this run cannot be scored on that; {has}" + ("" if task.parts else ": leave --part out")
        )
    if arguments.data_path is None and task.parts:
        task.part = asked or ("test" if "test" in task.parts else "validation")
    return none if task.parts and "test" not in task.parts else None


def _look(task: Task, arguments: argparse.Namespace) -> int | None:
    """Counts a look at the test part; None where another is scored."""
    from dqnlm.runs.directory import RunDirectory, find_run
    from dqnlm.runs.test_looks import count_look

    return count_look(RunDirectory(find_run(arguments.run, arguments.output_dir))) if task.part == "test" else None


def _data(policy: Policy, config: dict[str, Any], run: RunDirectory, arguments: argparse.Namespace) -> Any:
    """The run's own data, or the given file read with the run's tokenizer.

    Raises:
        UserError: the run's data is not what it was trained on, or there is none.
    """
    from dqnlm.builder.loading import load_data
    from dqnlm.data.text.corpora import build_corpus
    from dqnlm.data.text.sources import text_file
    from dqnlm.runs.fingerprints import other_data

    if arguments.data_path is not None:
        corpus = build_corpus(text_file(path=arguments.data_path), "character", 1.0, tokenizer=policy.tokenizer)
        corpus.require_tokens(policy.network.context + 1, "one window of the network")
        return replace(corpus, choosable_A=None if policy.legal_A is None else policy.legal_A.flatten().cpu())
    data = load_data(policy, config)
    found, expected = data.fingerprint(), _fingerprint(run)
    if found != expected:
        raise other_data(run, data.source, found, expected, "or score another text with --data-path FILE")
    return data


def _fingerprint(run: RunDirectory) -> str:
    """Of the data that the run was trained on, by its manifest or else by its newest checkpoint."""
    import torch

    from dqnlm.runs import checkpoint
    from dqnlm.runs.reading import manifest_of, object_at

    noted = object_at(manifest_of(run), "data").get("fingerprint")
    if noted is None:
        path, _ = checkpoint.newest_whole(run.checkpoints)
        noted = checkpoint.load(path, "training", torch.device("cpu"))["fingerprint"]
    return str(noted)


def _print(
    task: Task,
    table: Table,
    samples: list[str],
    step: int,
    arguments: argparse.Namespace,
    looks: int | None,
    note: str | None,
) -> None:
    from rich.console import Console

    from dqnlm.runs.test_looks import part_in_words

    console = Console(highlight=False)
    scored = (
        task.scored_on() if arguments.data_path is None else f"{Path(arguments.data_path).name}, {task.scored_on()}"
    )
    console.print(f"{arguments.run}, checkpoint {arguments.checkpoint} (step {step}), on {scored}")
    if task.parts and arguments.data_path is None:
        console.print(
            f"scored: {part_in_words(task.part, looks)}" + ("" if note is None else f"; {note}"), markup=False
        )
    for note in task.scoring_notes(arguments.data_path is not None):
        console.print(note)
    console.print(table)
    for text in samples:
        console.rule("sample")
        console.print(text, markup=False)
