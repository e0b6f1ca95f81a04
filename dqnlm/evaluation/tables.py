"""Tables of an evaluation for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from dqnlm.metrics import Metric


def evaluation_table(
    values: dict[str, float],
    baselines: dict[str, tuple[float, float]],
    policy: str,
    constant: str,
    step: int,
    done: str,
) -> Table:
    """Table of the policy and the baselines."""
    table = Table(title=f"evaluation after {step} updates ({done})", title_justify="left")
    for heading in ("policy", "accuracy", "nats/token", "return", "distinct-1/2/3", "top token"):
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    distinct = "/".join(f"{values[f'eval/distinct_{n}']:.2f}" for n in (1, 2, 3))
    table.add_row(
        "greedy",
        f"{values['eval/accuracy']:.4f}",
        "",
        f"{values['eval/return']:.3f}",
        distinct,
        f"{values['eval/top_token_share']:.2f}",
        style="bold",
    )
    distinct = "/".join(f"{values[f'sample/distinct_{n}']:.2f}" for n in (1, 2, 3))
    table.add_row(
        policy,
        "",
        f"{values['eval/nll']:.4f}",
        "",
        distinct,
        f"{values['sample/top_token_share']:.2f}",
        style="bold",
    )
    table.add_row(f"always {constant}", "", "", f"{values['eval/return_best_constant']:.3f}", "", "1.00")
    for name, (accuracy, nats) in baselines.items():
        table.add_row(name, f"{accuracy:.4f}", f"{nats:.4f}")
    return table


def episode_table(
    values: dict[str, float], metrics: Sequence[Metric], references: dict[str, float], step: int, done: str,
    policy: str = "greedy",
) -> Table:
    """Metrics of episodes played by a policy, one column each, above returns that are known without learning."""
    table = Table(title=f"evaluation after {step} updates ({done})", title_justify="left")
    table.add_column("policy", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.label, justify="right", no_wrap=True)
    cells = [f"{values[metric.name]:.3f}" for metric in metrics]
    table.add_row(policy, *cells, style="bold")
    for name, value in values.items():
        if name.startswith("eval/return_beta_"):
            table.add_row(f"beta {name.removeprefix('eval/return_beta_')}", f"{value:.3f}")
    for name, value in references.items():
        table.add_row(name, f"{value:.3f}")
    return table
