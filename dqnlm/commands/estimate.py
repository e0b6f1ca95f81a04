"""`dqnlm train ... --estimate`: memory and time of a run on this machine, before anything is loaded."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def show(config: Config) -> int:
    """Prints the estimate of one run; returns 0.

    Raises:
        UserError: its network is no pretrained model, or that cannot be read.
    """
    from dqnlm.builder import agent
    from dqnlm.builder.estimate import estimate
    from dqnlm.builder.q_semantics import reads_reference
    from dqnlm.errors import UserError
    from dqnlm.reporting.tables import make_console, print_table
    from dqnlm.runs.console import clock
    from dqnlm.types import Bounds
    from dqnlm.utils.memory import free_bytes

    if "name_or_path" not in config["network"]:
        raise UserError(
            "--estimate is of network=pretrained; the network of this run is built in moments, and the summary at its start says "
            "what it takes: add trainer.rollouts=1 or +debug=smoke"
        )
    import torch

    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    device = agent.choose_device(config["device"])
    head = agent.head_for(config, Bounds(-1e9, 1e9), False)  # the bounds are in the data, which are not read; any finite ones do
    objectives = agent.objectives_without_env(config, head, config["data"].get("rewards") or ())
    outputs = agent.outputs_of(config, objectives)
    copies = int("period" in config["target"] or "polyak_rate" in config["target"])
    found = estimate(config, outputs, copies, reads_reference(config), device)
    rows = [[what, f"{size / 2**20:,.0f} MiB"] for what, size in found.bytes_of.items() if size]
    console = make_console()
    print_table(console, ["memory", "about"], [*rows, ["together", f"{found.total_bytes / 2**20:,.0f} MiB"]], numbers=1)
    free = free_bytes(device)
    there = "" if free is None else f"; {free / 2**20:,.0f} MiB are free on {device}"
    print(f"{found.parameters:,} parameters, {found.learned:,} of them learn{there}")
    trainer = config["trainer"]
    rollout = f", {found.rollout_s:.1f} s a rollout" if found.rollout_s else ""
    rounds = trainer["rollouts"] + trainer["offline_rounds"]
    print(
        f"about {found.update_s:.1f} s an update of {trainer['batch_size']} rows{rollout}; {clock(found.total_s)} for {rounds:,} "
        f"rounds, evaluations not counted ({torch.get_num_threads()} threads)"
    )
    if free is not None and found.total_bytes > free:
        print(
            "this will not fit: set network.lora_rank=8, network.dtype=bfloat16, network.gradient_checkpointing=true, "
            f"learner.micro_batch_size={max(trainer['batch_size'] // 4, 1)} or a smaller env.num_envs"
        )
    return 0
