"""`dqnlm inspect RUN --text ...`: writes a page with Q, value and probability at every token of a text."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.commands.run_arguments import add_run_arguments, parse_run_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from dqnlm.agent.policy import Policy
    from dqnlm.reporting.inspection_page import Heading


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm inspect",
        description="Writes one self-contained page in which every token of a text is coloured by its Q-value, the value of "
        "the state, the advantage, the action gap or the log-probability; pointing at a token shows the five best ones.",
        epilog=examples(
            "dqnlm inspect latest --text 'To be, or not to be'", "dqnlm inspect latest --text-file play.txt",
            "dqnlm inspect latest --prompt 'ROMEO:' --text ' To be'",
        ),
        formatter_class=HelpFormatter,
    )
    add_run_arguments(parser)
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="the text to look at; without --prompt its first token is only read")
    parser.add_argument("--prompt", default="", help="what stands before the text: it is read, and neither scored nor counted")
    text.add_argument("--text-file", metavar="FILE", help="read the text from a file; - for standard input")
    parser.add_argument(
        "--output", metavar="FILE", help="path of the page (default: inspect.html in the run's folder)"
    )
    return parser


def main(argv: list[str]) -> int:
    """Writes the page and prints its path. Returns the exit code, 0.

    Raises:
        UserError: no such run, a run or a text that cannot be inspected, no place to write.
    """
    arguments = parse_run_arguments(_parser(), argv)

    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.errors import UserError
    from dqnlm.evaluation.inspection import inspect_text
    from dqnlm.reporting.inspection_page import build_page
    from dqnlm.runs.directory import find_run
    from dqnlm.utils.files import write_text_atomic

    folder = find_run(arguments.run, arguments.output_dir)
    output = Path(arguments.output) if arguments.output else folder / "inspect.html"
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"--output {output}: name a file in a folder that is there")
    text = _text(arguments)
    policy, config = load_policy_and_config(
        folder, arguments.checkpoint, arguments.output_dir, arguments.device, arguments.allow_targets,
        arguments.base, arguments.places,
    )  # fmt: skip
    page = build_page(inspect_text(policy, text, arguments.prompt), heading(policy, config, folder, arguments))
    try:
        write_text_atomic(output, page)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}. Choose another with --output.") from error
    print(output)
    return 0


def _text(arguments: argparse.Namespace) -> str:
    """The text, typed or of a file. Raises UserError where the file is no text."""
    from dqnlm.utils.encoding import typed_text

    return str(arguments.text) if arguments.text_file is None else typed_text(arguments.text_file, "--text-file")


def heading(policy: Policy, config: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> Heading:
    """The run and the checkpoint, with the meaning of the metrics."""
    from dqnlm.config.selected import option_name
    from dqnlm.reporting.inspection_page import Heading
    from dqnlm.reporting.names import run_name

    def option(group: str) -> str:
        return option_name(config, group, choices)

    name, choices = run_name(folder, Path(arguments.output_dir)), _choices(folder)
    experiment = str(choices.get("experiment", "none")) if choices else "not recorded"
    facts = [
        ("run", name),
        ("experiment", experiment),
        ("checkpoint", arguments.checkpoint),
    ]
    facts += [("step", f"{policy.step:,}"), ("gamma", str(config["gamma"]))]
    facts += [("network", option("network")), ("head", option("head"))]
    return Heading(
        name, facts,
        [*_describe_q(policy, config, option), _describe_value(policy), _describe_probability(policy), *_notes(config)],
    )  # fmt: skip


def _choices(folder: Path) -> dict[str, Any]:
    """The options of the run from its manifest; {} where that cannot be read."""
    from dqnlm.builder.launch import choices_of
    from dqnlm.runs.directory import RunDirectory

    try:
        return choices_of(RunDirectory(folder))
    except (OSError, ValueError):
        return {}


def _describe_q(policy: Policy, config: dict[str, Any], option: Callable[[str], str]) -> list[str]:
    from dqnlm.builder.agent import objectives_without_env
    from dqnlm.builder.q_semantics import why_q_is_no_expected_return, why_q_is_not_in_reward_units
    from dqnlm.tasks.select import task_class

    objectives = objectives_without_env(config, policy.head, policy.spec.reward_names)
    if (reason := why_q_is_no_expected_return(config, objectives)) is not None:
        return [reason]
    gamma, low, high = config["gamma"], float(policy.head.low), float(policy.head.high)
    origin = task_class(config).rewarded_by
    paid = f"reward={option('reward')}" if origin is None else f"the rewards of {origin}"
    told = [f"Q of a token is the expected return of choosing it after the text so far: the sum of {paid} from there on, "
            f"discounted by {gamma} a decision."]  # fmt: skip
    if (scaled := why_q_is_not_in_reward_units(config, objectives)) is not None:
        told.append(scaled)
    if math.isfinite(low) or math.isfinite(high):
        told.append(f"The return lies between {low:g} and {high:g}.")
    else:
        told.append("The return has no known bounds.")
    meaning = policy.head.meaning()
    return [*told, meaning] if meaning else told


def _describe_value(policy: Policy) -> str:
    from dqnlm.utils.output_names import plain

    if any(plain(name, policy.spec.reward_names) == "v" for name in policy.outputs):
        return "V is an output of the network's own, so that advantages can be above 0."
    return "V is the greatest Q of the tokens that may be chosen: the advantage is 0 for the best token, else below."


def _describe_probability(policy: Policy) -> str:
    from dqnlm.evaluation.inspection import has_probabilities

    if not has_probabilities(policy):
        return "There are no probabilities: no text has fitted a temperature to Q, and the run chooses greedily."
    formula = {
        "boltzmann": f"softmax(Q / T) with T = {policy.temperature:.4g}, fitted on held-out text",
        "probability": "Q as a probability, normalised over the tokens that may be chosen",
        "reweighted": f"the copied behaviour times exp({policy.beta:g} (Q - V)), normalised",
    }[policy.declared]
    return f"The declared policy, whose probabilities are shown: {formula}."


def _notes(config: dict[str, Any]) -> list[str]:
    notes = ["The text's next token is the action taken. Values at positions without a decision "
             "(for example inside a prompt) were never trained."]  # fmt: skip
    if config["env"].get("legal_moves_only"):
        notes.append("The run chose among legal moves only (env.legal_moves_only); this page compares all tokens.")
    return notes
