"""`dqnlm export RUN DIR`: exports a run on a pretrained model as a folder for `transformers`, with the value heads."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqnlm.commands.run_arguments import add_run_arguments

if TYPE_CHECKING:
    from dqnlm.agent.policy import Policy

HEADS, CARD = "heads.safetensors", "README.md"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm export",
        description="Writes a folder for transformers: the trunk with its adapters merged and the output `policy` as its output "
        f"layer, the tokenizer, the value heads ({HEADS}) and a model card.",
    )
    add_run_arguments(parser, device=False)
    parser.add_argument("dir", type=Path, metavar="DIR", help="a folder that is not there yet, or is empty")
    return parser


def main(argv: list[str]) -> int:
    """Writes the folder atomically, and prints its contents."""
    arguments = _parser().parse_args(argv)
    _require_free(arguments.dir)

    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.utils.failures import explain_disk_error

    policy, config = load_policy_and_config(
        arguments.run, arguments.checkpoint, arguments.output_dir, "cpu", arguments.allow_targets
    )
    _require_exportable(policy, config, arguments.run)
    summary = _summary(arguments.run, arguments.output_dir)
    target = arguments.dir.absolute()
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    with explain_disk_error(target.parent):
        try:
            temporary.mkdir(parents=True)
            write(policy, config, summary, temporary)
            if target.exists():
                target.rmdir()  # it is empty
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    print(f"wrote {arguments.dir}: {', '.join(sorted(path.name for path in target.iterdir()))}")
    return 0


def _require_free(folder: Path) -> None:
    from dqnlm.errors import UserError

    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        what = "is a file" if folder.is_file() else "is a folder that holds something"
        raise UserError(f"DIR: {folder} {what}; name one that is not there yet")


def _require_exportable(policy: Policy, config: dict[str, Any], run: str) -> None:
    """Requires a pretrained trunk with an output of log-probabilities, the condition for a language model.

    Raises:
        UserError: another network, or no output `policy`.
    """
    from dqnlm.config.selected import option_name
    from dqnlm.errors import UserError

    if policy.network.body.recipe is None:
        raise UserError(
            f"{run} is a run on network={option_name(config, 'network')}, dqnlm's own, which transformers cannot load; use it "
            "with dqnlm generate, or in Python: from dqnlm import load_policy"
        )
    if "policy" not in policy.network.projections:
        raise UserError(
            f"{run} has no output `policy` to be the language model's output layer: its outputs are "
            f"{', '.join(policy.network.projections)}; train with algorithm=ilql, or with objective.cross_entropy.output=policy"
        )


def _summary(run: str, output_dir: str) -> dict[str, Any]:
    """The run's summary.json; {} while it has none."""
    from dqnlm.reporting.loading import read_summary
    from dqnlm.runs.directory import find_run

    return read_summary(find_run(run, output_dir)) or {}


def write(policy: Policy, config: dict[str, Any], summary: dict[str, Any], folder: Path) -> None:
    """Writes everything into the empty folder `folder`."""
    import transformers
    from safetensors.torch import save_file

    from dqnlm.networks.pretrained import Pretrained

    body, projections = policy.network.body, policy.network.projections
    assert isinstance(body, Pretrained) and body.recipe is not None
    transformers.logging.disable_progress_bar()
    body.to_transformers(projections["policy"]).save_pretrained(folder)
    for name, text in body.recipe["files"].items():
        (folder / name).write_text(text, encoding="utf-8")
    heads = {k: v for k, v in projections.state_dict().items() if not k.startswith("policy.")}
    tensors = {"model_id_A": policy.network.get_buffer("encoder.model_id_A"), **heads}
    save_file(
        {k: v.contiguous().clone() for k, v in tensors.items()}, folder / HEADS, metadata=_meaning(policy, config)
    )
    (folder / CARD).write_text(card(policy, config, summary, tensors), encoding="utf-8")


def _meaning(policy: Policy, config: dict[str, Any]) -> dict[str, str]:
    """The conversion of raw outputs to returns, as strings."""
    head = {k: v for k, v in config["head"].items() if k != "_target_"}
    body = policy.network.body
    return {
        "head": config["head"]["_target_"].rpartition(".")[2], "head_settings": json.dumps(head),
        "low": str(float(policy.head.low)), "high": str(float(policy.head.high)), "beta": str(policy.beta),
        "projection": config["projection"]["_target_"].rpartition(".")[2], "q_init": config["network"]["q_init"],
        "q_temperature": str(getattr(body, "q_temperature", None)),
    }  # fmt: skip


def card(policy: Policy, config: dict[str, Any], summary: dict[str, Any], tensors: dict[str, Any]) -> str:
    """The model card, Markdown."""
    network, trainer = config["network"], config["trainer"]
    best = summary.get("best", {})
    rows = [f"| {name} | {value:.4g} |" for name, value in sorted(best.items()) if name.startswith("eval/")]
    data = config["data"].get("path") or config["data"].get("name")
    of_data = config["data"]["_target_"].rpartition(".")[2] + (f" ({Path(str(data)).name})" if data else "")
    lora = "all weights" if network["lora_rank"] is None else f"LoRA of rank {network['lora_rank']}, merged here"
    shapes = [f"| `{name}` | {tuple(tensor.shape)} |" for name, tensor in tensors.items()]
    lines = [
        "---", "library_name: transformers", "tags: [q-learning, dqnlm]", "---", "",
        f"# {Path(str(network['name_or_path'])).name}, trained by value with dqnlm", "",
        f"Trained from `{Path(str(network['name_or_path'])).name}` ({lora}) on {of_data}, objectives "
        f"{' + '.join(config['objective'])}, discount {config['gamma']}, {policy.step} updates of {trainer['batch_size']} rows "
        f"to this checkpoint, learning rate {config['optimizer']['lr']}, seed {config['seed']}.", "",
        "| metric at the best evaluation | ||", "| --- | --- |", *(rows or ["| none was written | |"]), "",
        "## How it acts", "",
        "`AutoModelForCausalLM` gives the cloned behaviour pi_b. The run acted by log pi_b + beta (Q - V) with beta = "
        f"{policy.beta:g}; V is the same for all tokens, so log pi_b + beta Q chooses alike. Q comes from the last hidden state "
        f"h (`output_hidden_states=True`, the last one) and the tensors of `{HEADS}`; of `q` and `q2` the smaller counts.", "",
        *_formula(policy), "",
        "`model_id_A` holds the token id of each action (row of the heads, in order). The file's metadata defines how raw "
        "numbers become returns (head, its settings and bounds).", "",
        "| tensor | shape |", "| --- | --- |", *shapes, "",
    ]  # fmt: skip
    return "\n".join(lines)


def _formula(policy: Policy) -> list[str]:
    """The formula of the raw outputs from h, with the names of the file's tensors."""
    from dqnlm.networks.pretrained_outputs import LogitQ

    projection = policy.network.projections["q"]
    if isinstance(projection, LogitQ):
        raw = (
            "raw = (h @ value.linear.weight.T + value.linear.bias) + q_temperature * log_softmax(h @ logit.linear.weight.T + "
            "logit.linear.bias)"
        )
    elif getattr(projection, "has_value_stream", False):
        raw = "raw = value(h) + advantage(h) - mean(advantage(h)), each a linear layer (two, .0 and .2, around a ReLU)"
    else:
        raw = "raw = h @ linear.weight.T + linear.bias"
    return [f"    {raw}        # the names begin with q., q2. or v. (v is always linear)"]
