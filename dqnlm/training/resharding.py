"""A checkpoint of some processes restored into another number of them.

What the ranks learned together is kept. Their rows are dealt out anew; environments and random streams begin anew, so that the
rest of the run is another one than it would have been.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dqnlm.buffers.shard import Shard
from dqnlm.training.components import Components
from dqnlm.types import Rows
from dqnlm.utils.permissions import resume_command

State = dict[str, Any]
AT_ONCE = 4096  # rows added to the replay buffer in one call


def put_back(components: Components, training: State, shares: list[State]) -> None:
    """Restores all but the policy and the learner, which are the same on all ranks.

    Args:
        components: of this rank.
        training: the state that all ranks share.
        shares: what each of the former ranks had of its own.
    """
    ranks, actor = components.ranks, components.actor
    if actor is not None:
        _deal_out(components, shares)
        steps, episodes = (sum(int(share["actor"][name]) for share in shares) for name in ("env_steps", "episodes"))
        actor.env_steps = steps // ranks.world + (steps % ranks.world if ranks.is_first else 0)
        actor.episodes.fill_(episodes // ranks.world + (episodes % ranks.world if ranks.is_first else 0))
    if components.pretraining is not None:
        generator = {"generator": components.pretraining.demonstrations.state()}
        components.pretraining.load_state_dict(training["warm_start"] | generator)
    components.console.warning(
        f"resumed by {_processes(ranks.world)} instead of {_processes(len(shares))}: rows are dealt out anew (with new "
        "priorities), environments and random numbers begin anew, so the rest is not what it would have been"
    )


def _deal_out(components: Components, shares: list[State]) -> None:
    """The rows of all former ranks in the order of their age, as far as they fit. (Logged rows are among them.)"""
    buffer = components.buffer
    if buffer.draws_whole_rollouts:
        return  # it holds the last rollout alone
    buffer.clear()
    shard = Shard(buffer, components.ranks)
    held = [buffer.storage.rows_of(share["buffer"]) for share in shares]
    longest = max(len(rows.length_B) for rows in held)
    for begin in range(0, longest, AT_ONCE):
        for rows in held:
            block = {name: value[begin : begin + AT_ONCE].to(buffer.device) for name, value in vars(rows).items()}
            shard.add(Rows(**block))


def refusal(run: Path, before: int, now: int) -> str:
    """Why a run of `before` processes does not go on with `now`."""
    return (
        f"{run} was trained by {_processes(before)} and is resumed by {_processes(now)}: each has rows, environments and random "
        f"numbers of its own\n  to go on as before: {resume_command(run, world=before)}\n"
        f"  to deal the rows out anew: {resume_command(run, world=now)} --reshard"
    )


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"
