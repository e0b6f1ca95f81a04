"""The model card of an exported folder, and the meaning of its value heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqnlm.agent.policy import Policy

HEADS = "heads.safetensors"


def meaning(policy: Policy, config: dict[str, Any]) -> dict[str, str]:
    """The conversion of raw outputs to returns, as strings."""
    head = {k: v for k, v in config["head"].items() if k != "_target_"}
    body = policy.network.body
    return {
        "head": config["head"]["_target_"].rpartition(".")[2], "head_settings": json.dumps(head),
        "low": str(float(policy.head.low)), "high": str(float(policy.head.high)), "beta": str(policy.beta),
        "projection": config["projection"]["_target_"].rpartition(".")[2], "q_init": config["network"]["q_init"],
        "q_temperature": str(getattr(body, "q_temperature", None)),
    }  # fmt: skip


def card(
    policy: Policy, config: dict[str, Any], summary: dict[str, Any], tensors: dict[str, Any], behaviour: bool, adapter: bool,
    notes: list[str],
) -> str:
    """The model card, Markdown."""
    network, trainer = config["network"], config["trainer"]
    best = summary.get("best", {})
    rows = [f"| {name} | {value:.4g} |" for name, value in sorted(best.items()) if name.startswith("eval/")]
    data = config["data"].get("path") or config["data"].get("name")
    of_data = config["data"]["_target_"].rpartition(".")[2] + (f" ({Path(str(data)).name})" if data else "")
    rank = network["lora_rank"]
    lora = "all weights" if rank is None else f"LoRA of rank {rank}, merged here" if rank else "a trunk that does not change"
    shapes = [f"| `{name}` | {tuple(tensor.shape)} |" for name, tensor in tensors.items()]
    lines = [
        "---", f"library_name: {'peft' if adapter else 'transformers'}", "tags: [q-learning, dqnlm]", "---", "",
        f"# {Path(str(network['name_or_path'])).name}, trained by value with dqnlm", "",
        f"Trained from `{Path(str(network['name_or_path'])).name}` ({lora}) on {of_data}, objectives "
        f"{' + '.join(config['objective'])}, discount {config['gamma']}, {policy.step} updates of {trainer['batch_size']} rows "
        f"to this checkpoint, learning rate {config['optimizer']['lr']}, seed {config['seed']}.", "",
        "| metric at the best evaluation | ||", "| --- | --- |", *(rows or ["| none was written | |"]), "",
        "## How it acts", "",
        *_acting(policy, behaviour, adapter), *(line for note in notes for line in (note, "")),
        "## Its values", "",
        f"Q comes from the last hidden state h (`output_hidden_states=True`, the last one) and the tensors of `{HEADS}`; of `q` "
        f"and `q2` the run acted by: {policy.acting_q}.", "",
        *_formula(policy), "",
        "`model_id_A` holds the token id of each action (row of the heads, in order). The file's metadata defines how raw "
        "numbers become returns (head, its settings and bounds).", "",
        "| tensor | shape |", "| --- | --- |", *shapes, "",
    ]  # fmt: skip
    return "\n".join(lines)


def _acting(policy: Policy, behaviour: bool, adapter: bool) -> list[str]:
    """What this model's probabilities are."""
    loader = (
        "Load it on the model that it was trained from: `PeftModel.from_pretrained(model, FOLDER)`." if adapter
        else "`AutoModelForCausalLM.from_pretrained(FOLDER)` loads it; no code of dqnlm is needed."
    )  # fmt: skip
    if behaviour:
        what = "Its probabilities are the cloned behaviour pi_b; what Q learned is not in them."
    elif policy.declared == "reweighted":
        of_weights = " + ".join(f"{weight:g} Q({name})" for name, weight in policy.weights.items())
        what = (
            f"Its probabilities are the policy that the run acted by, softmax(log pi_b + beta Q) with beta = {policy.beta:g}"
            f"{f' and Q = {of_weights}' if of_weights else ''}: "
            "the output layer is that of the behaviour pi_b plus beta times that of Q. (V is the same for all tokens.)"
        )
    else:
        what = (
            f"Its probabilities are softmax(Q / T) with T = {policy.temperature:g}, the run's fitted temperature: the output "
            "layer is that of Q over T."
        )
    return [what, "", loader, ""]


def _formula(policy: Policy) -> list[str]:
    """The formula of the raw outputs from h, with the names of the file's tensors."""
    from dqnlm.networks.pretrained_outputs import LogitQ
    from dqnlm.networks.projections import LowRank
    from dqnlm.utils.output_names import first_q

    projection = policy.network.projections[first_q(policy.network.projections)]
    if isinstance(projection, LogitQ):
        raw = "raw = value(h) + q_temperature * log_softmax(logits of the model before Q was added), value as the names say"
    elif isinstance(projection, LowRank):
        raw = "raw = h @ down.weight.T @ up.weight.T + constant_N"
    elif getattr(projection, "has_value_stream", False):
        raw = "raw = value(h) + advantage(h) - mean(advantage(h)), each a linear layer (two, .0 and .2, around a ReLU)"
    else:
        raw = "raw = h @ linear.weight.T (+ linear.bias where there is one)"
    return [f"    {raw}        # the names begin with q., q2. or v. (v is always linear)"]
