"""Acting beside learning: Ray actors play with weights that are some updates old, and the learner takes their rows as they come.

Q-learning is off-policy: rows of older weights teach as well. A round takes as many rollouts as make one rollout of all
environments, so updates and decisions keep the ratio that the trainer's settings say; what is different is which weights played,
and in what order rows arrive. Such a run does not repeat bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch

from dqnlm.errors import UserError
from dqnlm.metrics import Metrics
from dqnlm.networks.fixed_weights import changing_state
from dqnlm.training.components import Components
from dqnlm.training.phases import Acting, MakeRemote
from dqnlm.types import Rows

MOST_LOST = 3  # times the number of actors: so many in a row without a rollout between them end the run


class RayActors(Acting):
    """Plays by actors in processes of their own.

    Args:
        components: of the run.
        steps: decisions of each environment in a rollout; None for whole episodes.
        remote: from the number of actors, their device and `steps` to the class of one more, and its arguments.
        count: actors, which share the environments.
        device: of their networks.
        gpus: of each of them.
        refresh_every: updates after which the weights are sent anew.
        oldest: age in updates above which rows are dropped; None: no bound.

    Raises:
        UserError: numbers that cannot be, or a run whose rows must be of the newest weights.
    """

    def __init__(
        self,
        components: Components,
        steps: int | None,
        remote: MakeRemote,
        *,
        count: int,
        device: str,
        gpus: float,
        refresh_every: int,
        oldest: int | None,
    ) -> None:
        _check(components, count, refresh_every, oldest)
        self.components, self.count, self.gpus = components, count, gpus
        self.remote = lambda: remote(count, device, steps)
        self.refresh_every, self.oldest = refresh_every, oldest
        self.lost = self.dropped_rows = self._lost_in_a_row = 0
        self._actors: list[Any] = []
        self._pending: dict[Any, tuple[int, int]] = {}  # a rollout that is played -> its actor, and the updates of its weights
        self._sent: list[int] = []  # updates of the weights that each actor has; -1 for none
        self._weights: tuple[int, Any] = (-1, None)  # updates, and where Ray keeps them
        self._started_ray = False
        components.notes.append(
            f"played by {count} Ray actors with weights of some updates before: not to be repeated bit for bit"
        )

    def play(self, progress: float) -> None:
        """Takes rollouts until they make one of all environments; meanwhile the actors go on."""
        if not self._actors:
            self._start(progress)
        taken = 0
        while taken < self.count:
            (ready,), _ = self._ray.wait(list(self._pending), num_returns=1)
            taken += self._take(ready, progress)

    def metrics(self) -> Metrics:
        return {"actors/lost": float(self.lost), "actors/dropped_rows": float(self.dropped_rows)}

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors, self._pending = [], {}
        if self._started_ray:
            self._ray.shutdown()
            self._started_ray = False

    def _start(self, progress: float) -> None:
        self._ray = _ray()
        if not self._ray.is_initialized():
            self._started_ray = True
            address = os.environ.get("RAY_ADDRESS")
            local: dict[str, Any] = {} if address else {"num_cpus": self.count, "include_dashboard": False}
            passed = {name: value for name, value in os.environ.items() if name.startswith("DQNLM_")}
            with _own_signals():
                self._ray.init(
                    address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": passed}, **local
                )
        for number in range(self.count):
            self._actors.append(self._made())
            self._sent.append(-1)
            self._send(number, progress)

    def _made(self) -> Any:
        kind, arguments = self.remote()
        return self._ray.remote(kind).options(num_cpus=1, num_gpus=self.gpus).remote(*arguments)

    def _send(self, number: int, progress: float) -> None:
        """Has an actor play the next rollout, with new weights where its own are old enough."""
        updates = self.components.updates
        if updates - self._weights[0] >= self.refresh_every or self._weights[0] < 0:
            state = changing_state(self.components.policy.network)
            self._weights = (updates, self._ray.put({name: value.detach().cpu() for name, value in state.items()}))
        new = self._sent[number] != self._weights[0]
        self._sent[number] = self._weights[0]
        reference = self._actors[number].play.remote(self._weights[1] if new else None, progress)
        self._pending[reference] = (number, self._weights[0])

    def _take(self, ready: Any, progress: float) -> int:
        """Stores a rollout that has been played; 1 if it counts, 0 if it was lost or too old."""
        number, played_with = self._pending.pop(ready)
        try:
            played = self._ray.get(ready)
        except self._ray.exceptions.RayActorError as error:
            self._replace(number, progress, error)
            return 0
        self._lost_in_a_row = 0
        if played.error is not None:
            raise UserError(f"{played.error}\n  (in an actor: see actors in the run's config.yaml)")
        age = self.components.updates - played_with
        self._send(number, progress)
        if self.oldest is not None and age > self.oldest:
            self.dropped_rows += sum(len(rows.length_B) for rows in played.rows)
            return 0
        self._store(played, age)
        return 1

    def _store(self, played: Any, age: int) -> None:
        components, actor = self.components, self.components.actor
        assert actor is not None, "the run plays"
        for rows in played.rows:
            block = {name: value.to(components.buffer.device) for name, value in vars(rows).items()}
            components.buffer.add(Rows(**block))
        components.accumulator.add_sums(played.sums)
        components.accumulator.add("actors/age", torch.tensor(float(age)))
        actor.env_steps += played.env_steps
        actor.episodes += played.episodes

    def _replace(self, number: int, progress: float, error: Exception) -> None:
        """Puts a new actor, with random numbers of its own, in the place of one that is gone."""
        self.lost += 1
        self._lost_in_a_row += 1
        reason = str(error).splitlines()[0]
        if self._lost_in_a_row > MOST_LOST * self.count:
            raise UserError(f"{self._lost_in_a_row} actors were lost one after the other, the last because: {reason}")
        self.components.console.warning(
            f"actor {number} was lost ({reason}); another takes its place, and the rollout that it was playing is not counted"
        )
        self._actors[number], self._sent[number] = self._made(), -1
        self._send(number, progress)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back the handlers of signals that Ray replaces: a run that is told to stop saves first."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError("actors=ray needs the package ray: pip install 'dqnlm[ray]', or set actors=none") from None
    return ray


def _check(components: Components, count: int, refresh_every: int, oldest: int | None) -> None:
    """Raises UserError."""
    if count < 1 or refresh_every < 1:
        raise UserError(f"actors.count={count} and actors.refresh_every={refresh_every} must be at least 1")
    if oldest is not None and oldest < refresh_every:
        raise UserError(
            f"actors.oldest={oldest} is less than actors.refresh_every={refresh_every}: no row would be young enough; set "
            f"actors.oldest={refresh_every} or more"
        )
    environments, unit = components.env.num_envs, count * components.buffer.copies
    if environments % unit:
        low, high = environments // unit * unit, (environments // unit + 1) * unit
        near = f"{low} or {high}" if low else str(high)
        raise UserError(
            f"env.num_envs={environments} is shared by actors.count={count} actors, each with as much: set it to {near}"
        )
    if components.ranks.world > 1:
        raise UserError("actors=ray plays for one learner; with torchrun set actors=none")
    if components.buffer.draws_whole_rollouts:
        raise UserError(
            f"buffer={components.context.option('buffer')} learns from the newest rollout alone, and actors=ray plays with older "
            "weights; set buffer=uniform or actors=none"
        )
