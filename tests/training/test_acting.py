"""Acting beside learning, without Ray: which weights are sent, what is counted, dropped and replaced."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dqnlm.builder.remote_actor import Collected, Played, remote_actors
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator
from dqnlm.training.ray_actors import MOST_LOST, RayActors
from dqnlm.types import Rows
from dqnlm.utils.ranks import ALONE

CPU = torch.device("cpu")


class GoneError(Exception):
    pass


class Reference:
    def __init__(self, result: Played) -> None:
        self.result = result


class FakeRay:
    """Plays at once, in order; `fates` says what becomes of a rollout: None for well, or an exception."""

    exceptions = SimpleNamespace(RayActorError=GoneError)

    def __init__(self) -> None:
        self.fates: list[Exception | None] = []
        self.made = self.killed = self.sent = 0
        self.weights: list[Any] = []  # given to each rollout

    def is_initialized(self) -> bool:
        return True

    def put(self, value: Any) -> Any:
        self.sent += 1
        return value

    def wait(self, pending: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return pending[:1], pending[1:]

    def get(self, reference: Any) -> Any:
        fate = self.fates.pop(0) if self.fates else None
        if fate is not None:
            raise fate
        return reference.result

    def kill(self, actor: Any) -> None:
        self.killed += 1

    def remote(self, kind: type) -> Any:
        ray = self

        class Made:
            def options(self, **needs: Any) -> Any:
                return self

            def remote(self, *arguments: Any) -> Any:
                ray.made += 1

                def play(weights: Any, progress: float) -> Any:
                    ray.weights.append(weights)
                    numbers = torch.arange(3)
                    rows = Rows(numbers[:, None], numbers[:, None], numbers[:, None].float(), numbers[:, None], numbers)
                    sums = {"rollout/return": torch.tensor([6.0, 3.0])}
                    return Reference(Played([rows], sums, env_steps=30, episodes=3))

                return SimpleNamespace(play=SimpleNamespace(remote=play))

        return Made()


def components(updates: Callable[[], int] = lambda: 0, **changes: Any) -> Any:
    added: list[Rows] = []
    buffer = SimpleNamespace(add=added.append, device=CPU, copies=1, draws_whole_rollouts=False, added=added)
    usual = {
        "buffer": buffer, "env": SimpleNamespace(num_envs=6), "ranks": ALONE, "notes": [], "accumulator": Accumulator(CPU),
        "actor": SimpleNamespace(env_steps=0, episodes=torch.zeros((), dtype=torch.int64)),
        "policy": SimpleNamespace(network=torch.nn.Linear(1, 1)),
        "console": SimpleNamespace(warning=lambda text: None), "context": SimpleNamespace(option=lambda group: "rollout"),
    }  # fmt: skip

    class Parts(SimpleNamespace):
        @property
        def updates(self) -> int:
            return updates()

    return Parts(**(usual | changes))


def actors(parts: Any, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> RayActors:
    monkeypatch.setattr("dqnlm.training.ray_actors._ray", lambda: ray)
    usual = {"count": 2, "device": "cpu", "gpus": 0.0, "refresh_every": 4, "oldest": 8}
    return RayActors(parts, None, lambda count, device, steps: (object, ()), **(usual | settings))


def test_a_round_is_one_rollout_of_all_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: rounds that take what is there, so that decisions for each update depend on the speed of the machine."""
    parts, ray = components(), FakeRay()
    acting = actors(parts, ray, monkeypatch)
    for _ in range(3):
        acting.play(0.5)
    assert len(parts.buffer.added) == 6 and parts.actor.env_steps == 180 and int(parts.actor.episodes) == 18
    assert parts.accumulator.pop_means() == {"rollout/return": 2.0, "actors/age": 0.0}
    acting.close()
    acting.close()
    assert ray.made == ray.killed == 2


def test_weights_are_sent_once_in_so_many_updates_to_each_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: weights are sent with every rollout, or never again."""
    updates = 0
    parts, ray = components(lambda: updates), FakeRay()
    acting = actors(parts, ray, monkeypatch)
    for _ in range(8):  # 16 rollouts are taken; 2 more are played already
        acting.play(0.0)
        updates += 1
    given = [weights is not None for weights in ray.weights]
    assert ray.sent == 2 and sum(given) == 4 and given[:2] == [True, True]


def test_old_rows_are_dropped_and_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: rows of any age are learned from, or a round that drops rows has fewer decisions."""
    updates = 0
    parts, ray = components(lambda: updates), FakeRay()
    acting = actors(parts, ray, monkeypatch)
    acting.play(0.0)
    updates = 9  # the two rollouts that are played now are of update 0
    acting.play(0.0)
    assert len(parts.buffer.added) == 4 and acting.metrics() == {"actors/lost": 0.0, "actors/dropped_rows": 6.0}
    assert parts.accumulator.pop_means()["actors/age"] == 0.0


def test_a_lost_actor_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the run ends, or waits for ever, where one of the actors is killed; the new one has no weights."""
    parts, ray = components(), FakeRay()
    said: list[str] = []
    parts.console.warning = said.append
    acting = actors(parts, ray, monkeypatch)
    ray.fates = [None, GoneError("killed")]
    acting.play(0.0)
    assert ray.made == 3 and acting.metrics()["actors/lost"] == 1.0 and len(parts.buffer.added) == 2
    assert "actor 1 was lost (killed)" in said[0] and ray.weights[-1] is None and sum(w is not None for w in ray.weights) == 3


def test_actors_that_always_die_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: an actor that cannot live is made again and again."""
    parts, ray = components(), FakeRay()
    ray.fates = [GoneError("no memory")] * 100
    with pytest.raises(UserError, match="7 actors were lost one after the other, the last because: no memory"):
        actors(parts, ray, monkeypatch).play(0.0)
    assert ray.made == 2 + MOST_LOST * 2


def test_a_mistake_in_an_actor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: an error of the user's own reward in another process ends as a traceback of Ray."""
    parts, ray = components(), FakeRay()
    monkeypatch.setattr(ray, "get", lambda reference: Played(error="mine.py, line 3: division by zero"))
    with pytest.raises(UserError, match=r"mine\.py, line 3: division by zero"):
        actors(parts, ray, monkeypatch).play(0.0)


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        ({"count": 0}, {}, "must be at least 1"),
        ({"count": 4}, {}, "env.num_envs=6 is shared by actors.count=4 actors, each with as much: set it to 4 or 8"),
        ({"oldest": 3}, {}, "set actors.oldest=4 or more"),
        ({}, {"ranks": SimpleNamespace(world=2)}, "with torchrun set actors=none"),
        ({}, {"buffer": SimpleNamespace(copies=1, draws_whole_rollouts=True)}, "learns from the newest rollout alone"),
    ],
)
def test_refusals(settings: dict[str, Any], changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as caught:
        actors(components(**changes), FakeRay(), monkeypatch, **settings)
    assert said in str(caught.value)


def test_each_actor_has_its_share_and_random_numbers_of_its_own() -> None:
    """Bug: two actors play the same episodes; an actor that takes the place of another plays its episodes again."""
    make = remote_actors({"env": {"num_envs": 6}, "seed": 5, "device": "cuda"}, {"env": "maze"})
    configs = [make(3, "cpu", None)[1][0] for _ in range(3)]
    assert [config["env"]["num_envs"] for config in configs] == [2, 2, 2] and {c["device"] for c in configs} == {"cpu"}
    assert len({config["seed"] for config in configs} | {5}) == 4


def test_collected_rows_are_copies_of_those_that_ended() -> None:
    """Bug: rows that are written on after they were collected, or of episodes that have not ended."""
    numbers = torch.arange(3)
    rows = Rows(numbers[:, None], numbers[:, None], numbers[:, None], numbers[:, None], numbers)
    collected = Collected()
    collected.add(rows, torch.tensor([True, False, True]))
    collected.add(rows, torch.tensor([False, False, False]))
    numbers += 10
    (block,) = collected.taken()
    assert block.length_B.tolist() == [0, 2] and collected.taken() == []
