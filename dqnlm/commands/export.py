"""`dqnlm export RUN DIR`: writes a run on a pretrained model as a folder for other programs, which acts as the run did."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.commands.run_arguments import add_run_arguments, add_weights, parse_run_arguments, set_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dqnlm.agent.acting_layer import Layer
    from dqnlm.agent.policy import Policy

HEADS, CARD, GENERATION = "heads.safetensors", "README.md", "generation_config.json"
DTYPES = ("float32", "bfloat16", "float16")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm export",
        description="Writes a folder for transformers: the trunk with its adapters merged, "
        "an output layer that holds what Q learned, so that the model acts as the run did, the tokenizer, the value heads "
        f"({HEADS}) and a model card.",
        epilog=examples("dqnlm export latest my_model"), formatter_class=HelpFormatter,
    )
    add_run_arguments(parser, device=False)
    parser.add_argument("dir", type=Path, metavar="DIR", help="a folder that is not there yet, or is empty")
    parser.add_argument(
        "--behaviour", action="store_true", help="export the cloned behaviour (beta 0) in place of the policy that acted"
    )
    parser.add_argument(
        "--beta", type=float, metavar="BETA", help="in the place of policy.beta, of a run with policy.kind=reweighted"
    )
    add_weights(parser)
    parser.add_argument(
        "--adapter", action="store_true", help="write an adapter for peft, a few MB, to be loaded on the model that it was "
        "trained from; needs network.lora_rank and projection=low_rank"
    )  # fmt: skip
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: that of the pretrained model's files)")
    return parser


def main(argv: list[str]) -> int:
    """Writes the folder atomically, and prints its contents."""
    arguments = parse_run_arguments(_parser(), argv)
    _require_free(arguments.dir)

    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.utils.failures import explain_disk_error

    policy, config = load_policy_and_config(
        arguments.run, arguments.checkpoint, arguments.output_dir, "cpu", arguments.allow_targets, arguments.base,
        arguments.places,
    )  # fmt: skip
    _require_exportable(policy, config, arguments.run, arguments.adapter)
    set_weights(policy, arguments.weights)
    if arguments.beta is not None:
        _set_beta(policy, arguments.beta)
    summary = _summary(arguments.run, arguments.output_dir)
    target = arguments.dir.absolute()
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    with explain_disk_error(target.parent):
        try:
            temporary.mkdir(parents=True)
            dtype = arguments.dtype or own_dtype(policy)
            notes = write(policy, config, summary, temporary, arguments.behaviour, arguments.adapter, dtype)
            if target.exists():
                target.rmdir()  # it is empty
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for note in notes:
        print(note)
    files = sorted(target.iterdir())
    print(f"wrote {arguments.dir}: {', '.join(f'{path.name} ({_size(path)})' for path in files)}")
    return 0


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _require_free(folder: Path) -> None:
    from dqnlm.errors import UserError

    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        what = "is a file" if folder.is_file() else "is a folder that holds something"
        raise UserError(f"DIR: {folder} {what}; name one that is not there yet")


def _require_exportable(policy: Policy, config: dict[str, Any], run: str, adapter: bool) -> None:
    """Raises UserError for a network that transformers does not have, and for an adapter of several rewards."""
    from dqnlm.config.selected import option_name
    from dqnlm.errors import UserError

    if policy.network.body.recipe is None:
        raise UserError(
            f"{run} is a run on network={option_name(config, 'network')}, dqnlm's own, which transformers cannot load; use it "
            "with dqnlm generate, or in Python: from dqnlm import load_policy"
        )
    if policy.weights and adapter:
        raise UserError(
            f"--adapter: {run} learned several rewards ({', '.join(policy.weights)}), and adapters hold one; leave it out, and "
            "--weights says what is folded into the whole model"
        )


def _set_beta(policy: Policy, beta: float) -> None:
    """Acts at another strength of Q.

    Raises:
        UserError: the run's policy has none, or the number is none.
    """
    import math

    from dqnlm.errors import UserError

    if policy.declared != "reweighted":
        raise UserError(f"--beta belongs to runs with policy.kind=reweighted; this one is {policy.declared}: leave it out")
    if not 0 <= beta < math.inf:
        raise UserError(f"--beta must be at least 0 and finite, not {beta}")
    policy.beta = beta


def _summary(run: str, output_dir: str) -> dict[str, Any]:
    """The run's summary.json; {} while it has none."""
    from dqnlm.reporting.loading import read_summary
    from dqnlm.runs.directory import find_run

    return read_summary(find_run(run, output_dir)) or {}


def own_dtype(policy: Policy) -> str:
    """The precision of the files that the model was read from; float32 where the run does not know it, or it is another."""
    recipe = policy.network.body.recipe or {}
    found = recipe.get("dtype")
    return found if found in DTYPES else "float32"


def write(
    policy: Policy, config: dict[str, Any], summary: dict[str, Any], folder: Path, behaviour: bool, adapter: bool, dtype: str
) -> list[str]:
    """Writes everything into the empty folder `folder`; returns what the user should know.

    Raises:
        UserError: the policy cannot be written as a language model.
    """
    import torch
    import transformers
    from safetensors.torch import save_file

    from dqnlm.agent.acting_layer import acting_layer, behaviour_layer
    from dqnlm.commands.export_agreement import agreement
    from dqnlm.commands.export_card import card, meaning
    from dqnlm.networks.pretrained import Pretrained

    body, projections = policy.network.body, policy.network.projections
    assert isinstance(body, Pretrained) and body.recipe is not None
    transformers.logging.disable_progress_bar()
    layer, is_exact = (behaviour_layer(policy), True) if behaviour else acting_layer(policy)
    notes = [] if is_exact else [agreement(policy, layer)]
    if adapter:
        from dqnlm.commands.export_adapter import save_adapter

        save_adapter(policy, body, folder, behaviour)
    else:
        _model(body, layer).to(getattr(torch, dtype)).save_pretrained(folder)
        for name, text in body.recipe["files"].items():
            (folder / name).write_text(text, encoding="utf-8")
        notes += _suppress_unused(policy, body, folder)
    heads = {k: v for k, v in projections.state_dict().items() if not k.startswith("policy.") and ".logit." not in k}
    tensors = {"model_id_A": policy.network.get_buffer("encoder.model_id_A"), **heads}
    save_file(
        {k: v.contiguous().clone() for k, v in tensors.items()}, folder / HEADS, metadata=meaning(policy, config)
    )
    (folder / CARD).write_text(card(policy, config, summary, tensors, behaviour, adapter, notes), encoding="utf-8")
    return notes


def _model(body: Any, layer: Layer) -> PreTrainedModel:
    """The model with this output layer.

    Raises:
        UserError: the layer has a bias for each token, and the architecture has none.
    """
    from dqnlm.errors import UserError

    model: PreTrainedModel = body.to_transformers(*layer)
    output: Any = model.get_output_embeddings()
    if output.bias is None and layer.bias_A is not None and bool((layer.bias_A != layer.bias_A[0]).any()):
        raise UserError(
            f"a {model.config.model_type} has no bias in its output layer, and Q of this run has one for each token, so the "
            "policy cannot be folded into it. Train with projection=low_rank, or export the cloned behaviour: --behaviour"
        )
    return model


def _suppress_unused(policy: Policy, body: Any, folder: Path) -> list[str]:
    """Tells `generate` of the tokens that the run never chooses."""
    import torch

    used = policy.network.get_buffer("encoder.model_id_A")
    if policy.legal_A is not None:
        used = used[policy.legal_A.cpu()]
    is_unused = torch.ones(json.loads(body.recipe["config"])["vocab_size"], dtype=torch.bool)
    is_unused[used] = False
    unused = is_unused.nonzero().flatten().tolist()
    if not unused:
        return []
    path = folder / GENERATION
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(settings | {"suppress_tokens": unused}, indent=2) + "\n", encoding="utf-8")
    return [
        f"tokens that the run never chooses ({len(unused):,}) are named in {GENERATION} (suppress_tokens), which generate of "
        "transformers heeds; a program that does not may choose them"
    ]
