"""Parts that a user wrote outside the package are accepted and refused by what they say of themselves, as ours are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqnlm import cli
from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.trainer import Trainer
from tests.helpers import runs as tools

Build = Callable[..., Trainer]

CODE = '''
import torch

from dqnlm.agent.exploration import Exploration
from dqnlm.buffers.base import Buffer
from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.heads.distributional import DistributionalHead
from dqnlm.networks.projections import Dueling
from dqnlm.networks.recurrent import GRU
from dqnlm.objectives.base import LossOutput, Objective
from dqnlm.objectives.bootstrap import Bootstrap
from dqnlm.objectives.returns import NStep, Returns
from dqnlm.rewards.base import StatefulReward
from dqnlm.types import Bounds


class Mixed(Returns):
    is_affine = False

    def target(self, reward_BT, discount_BT, mask_BT, carry_BT, value_BS):
        return reward_BT + discount_BT * (value_BS[:, 1:] + value_BS[:, :-1]) / 2


class Two(DistributionalHead):
    """Two equally likely returns."""

    num_parameters = 2

    def atoms(self, raw_XN):
        return raw_XN.float(), torch.full_like(raw_XN.float(), 0.5)

    def loss_atoms(self, raw_BTAN, action_BT, z_BTM, p_BTM):
        index = action_BT[..., None, None].expand(*action_BT.shape, 1, 2)
        return (raw_BTAN.gather(-2, index).squeeze(-2) - (z_BTM * p_BTM).sum(-1, keepdim=True)).square().sum(-1)


class Plain(Head):
    """The raw number is Q."""

    raw_is_q = True

    def value(self, raw_XAN):
        return raw_XAN.squeeze(-1).float()

    def loss_taken(self, raw_BTAN, action_BT, target_BT):
        return (self.value(raw_BTAN).gather(-1, action_BT[..., None]).squeeze(-1) - target_BT).square()

    def loss_all(self, raw_BTAN, target_BTA):
        return (self.value(raw_BTAN) - target_BTA).square().sum(-1)


class Squashed(Plain):
    """Q is the tangent of nothing: a raw number is not Q, and Q lies between the bounds of the rewards."""

    raw_is_q = False
    is_scaled_by_bounds = True


class Best(Bootstrap):
    names_action = True

    def value(self, online, target, legal):
        return target.q_BSA.amax(-1)

    def action(self, online, target, legal):
        return target.q_BSA.argmax(-1)


class Entropic(Best):
    adds_entropy = True


class Following(StatefulReward):
    """1 for the token whose number follows that of the reference token (the first follows the last)."""

    knows_all_actions = True

    def __init__(self, num_actions, *, known: bool):
        super().__init__(num_actions)
        self.knows_all_actions = known

    @property
    def bounds(self):
        return Bounds(0.0, 1.0)

    def _start(self, reference_EH):
        return {"reference_EH": reference_EH, "time_E": torch.zeros_like(reference_EH[:, 0], dtype=torch.int64)}

    def _advance(self, state, action_E):
        reference_EH, time_E = state["reference_EH"], state["time_E"]
        wanted_E = (reference_EH.gather(1, time_E.clamp(max=reference_EH.shape[1] - 1)[:, None])[:, 0] + 1) % self.num_actions
        return {"reference_EH": reference_EH, "time_E": time_E + 1}, (action_E == wanted_E).float()

    def all_actions(self, reference_BH):
        return torch.nn.functional.one_hot((reference_BH.long() + 1) % self.num_actions, self.num_actions).float()


class Stubborn(Exploration):
    """Always the first action."""

    needs_q = False

    def __call__(self, q_XA, legal_XA, log_probability_XA=None):
        return torch.zeros_like(q_XA[..., 0], dtype=torch.int64)


class Watching(Stubborn):
    uses_reference = True


class Copying(Objective):
    clones_actions = True

    def __init__(self, head, *, weight: float):
        super().__init__(weight)
        self.head = head

    def __call__(self, online, target, batch, reference=None):
        q_BTA = self.head.value(online["q"][:, : batch.action_BT.shape[1]])
        return LossOutput(-q_BTA.log_softmax(-1).gather(-1, batch.action_BT[..., None]).squeeze(-1), {})


class Fleeting(NStep):
    def __init__(self):
        super().__init__(n=1)

    def check(self, context):
        if context.gamma > 0.3:
            raise UserError(f"{context.option('returns')} is for gamma of at most 0.3, not {context.gamma}")


class OwnDueling(Dueling):
    pass


class Impatient(GRU):
    def check(self, context):
        if context.burn_in == 0:
            raise UserError(f"network={context.option('network')} needs learner.burn_in above 0")
'''
OPTIONS = {
    "returns/mixed": "Mixed", "returns/fleeting": "Fleeting", "head/two": "Two", "head/plain": "Plain",
    "head/squashed": "Squashed", "bootstrap/best": "Best", "bootstrap/entropic": "Entropic",
    "reward/following": "Following\nknown: true", "exploration/stubborn": "Stubborn", "exploration/watching": "Watching",
    "objective/copying": "Copying\nweight: 1.0", "projection/own_dueling": "OwnDueling\nhidden: 0",
    "network/impatient": "Impatient\nlayers: 1\nwidth: 16\ncontext: 16",
}  # fmt: skip
EXACT = "{_target_: dqnlm.rewards.exact_match.ExactMatch, match: 1.0, mismatch: 0.0, weight: 0.5}"
SIMILAR = "{_target_: dqnlm.rewards.similarity.build_similarity, kind: edit, max_n: null, weight: %s}"
ALL_ACTIONS = ["feedback=all_actions", "head.loss=huber"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user works: own_parts.py, its options, and a text."""
    (tmp_path / "own_parts.py").write_text(CODE)
    for option, target in OPTIONS.items():
        path = tmp_path / "options" / f"{option}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        name = option.partition("/")[2]
        package = f"# @package objective.{name}\n" if option.startswith("objective/") else ""
        path.write_text(f"{package}# {name}: a part of the user's own\n_target_: own_parts.{target}\n")
    tools.write_text(tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return tmp_path


def typed(folder: Path, *overrides: str) -> list[str]:
    """Tiny settings; what another exploration or head lacks is left out."""
    lacking = {"exploration": "exploration.fraction", "network=impatient": "network.heads"}
    chosen = {word.split("=")[0] for word in overrides} | set(overrides)
    dropped = {key for choice, key in lacking.items() if choice in chosen}
    words = tools.tiny(folder / "text.txt", "+allow_targets=[own_parts]", *overrides)
    return [word for word in words if word.split("=")[0] not in dropped]


@pytest.fixture
def build(folder: Path) -> Build:
    """`build("head=two")` -> the trainer, not yet trained."""

    def built(*overrides: str) -> Trainer:
        words = typed(folder, *overrides)
        composed, choices = composition.compose(words, folder / "options")
        config = validation.validate(composed, choices, words, config_dir=folder / "options")
        (folder / "run").mkdir(exist_ok=True)
        return launch.build(config, RunDirectory(folder / "run"), choices=choices)

    return built


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["head=two", "returns=mixed"], ["returns=mixed mixes values", "(head=two)", "use returns=n_step"]),
        (["head=categorical", "returns=mixed"], ["returns=mixed mixes values", "(head=categorical)"]),
        (["head=two", "bootstrap=soft"], ["bootstrap=soft is not the value of one action", "(head=two)"]),
        (["head=two", "feedback=all_actions"], ["predicts a distribution of returns"]),
        (["feedback=all_actions", "returns=mixed"], ["set returns=one_step"]),
        (["head=squashed", "bootstrap=entropic"], ["bootstrap=entropic adds entropy"]),
        (["head=squashed", "pretraining.updates=2"], ["a raw output is no Q"]),
        (["reward=following", "reward.known=false", "feedback=all_actions"], ["reward=following is not"]),
        (["exploration=watching"], ["exploration=watching with objective td", "confounded"]),
        (["objective=[td,copying]"], ["objective copying clones the actions in the buffer"]),
        (["network=impatient"], ["network=impatient needs learner.burn_in"]),
        (["network=transformer", "learner.burn_in=2"], ["which only network=gru has"]),
        (["returns=fleeting"], ["fleeting is for gamma of at most 0.3, not 0.5"]),
        (["buffer=prioritized", "objective=[copying]", "exploration=reference"], ["replays large errors"]),
        (["head=normalised", "projection=own_dueling", "reward=following"], ["exactly one action is rewarded"]),
    ],
    ids=lambda value: " ".join(value) if any("=" in word for word in value) else "",
)
def test_refused(build: Build, overrides: list[str], parts: list[str]) -> None:
    """Bug: a check knows only the package's classes, so that a user's part fails at the first update, or misleads."""
    with pytest.raises(UserError) as caught:
        build(*overrides)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["head=two", "bootstrap=best", "returns=one_step"],
        ["head=plain", "returns=mixed", "bootstrap=entropic"],
        ["head=plain", "env.transition=free", "pretraining.updates=4"],
        ["head=plain", "reward=following", "feedback=all_actions", "exploration=stubborn"],
        ["head=normalised", "projection=own_dueling"],
        ["objective=[copying]", "exploration=reference"],
        ["returns=fleeting", "gamma=0.2"],
        ["network=impatient", "learner.burn_in=2"],
    ],
    ids=" ".join,
)
def test_accepted_and_trained(build: Build, overrides: list[str]) -> None:
    """Bug: a part is refused because it is not one of ours, although it says that it can do what is asked."""
    assert build("trainer.rollouts=2", *overrides).run()["status"] == "finished"


@pytest.mark.parametrize(
    ("parts", "known"),
    [
        (f"{{first: {EXACT}, second: {EXACT}}}", True),
        (f"{{first: {EXACT}, second: {SIMILAR % 0.0}}}", True),
        (f"{{first: {EXACT}, second: {SIMILAR % 0.5}}}", False),
    ],
    ids=["exact and exact", "exact, and one that is only logged", "exact and one of the words before"],
)
def test_a_mixture_knows_all_actions_where_what_it_pays_does(
    folder: Path, build: Build, parts: str, known: bool
) -> None:
    """Bug: refused although every part knows; accepted although one that is paid does not."""
    (folder / "options/reward/both.yaml").write_text(
        f"# both: two\n_target_: dqnlm.rewards.mixture.Mixture\nparts: {parts}\n"
    )
    if not known:
        with pytest.raises(UserError, match="reward=both is not"):
            build("reward=both", *ALL_ACTIONS)
        return
    assert build("reward=both", "trainer.rollouts=2", *ALL_ACTIONS).run()["status"] == "finished"


def test_every_action_is_taught_the_reward_of_the_user(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: all_actions learns from the action taken alone, or from a match; here only the first action is ever taken.

    The reward is for the token after the text's own, in the text "abcdabcd...". After the last token comes the first, and one
    of the five is the unknown token, which may not be chosen: so of four decisions three can be paid, 6 in an episode of 8.
    The first action alone earns at most 2, and the text's own letter nothing.
    """
    (folder / "text.txt").write_text("abcd" * 500)
    words = typed(
        folder, "head=plain", "reward=following", "exploration=stubborn", "feedback=all_actions", "gamma=0",
        "optimizer.lr=1e-2", "trainer.rollouts=60", "evaluation.best_metric=eval/return", "env.prompt_length=4",
    )  # fmt: skip
    code = cli.main(["train", "--config-dir", "options", *words, f"hydra.run.dir={folder}/trained"])
    out, err = capfd.readouterr()
    assert code == 0, err
    rows = [json.loads(line) for line in (folder / "trained/metrics.jsonl").read_text().splitlines()]
    returns = [row["eval/return"] for row in rows if "eval/return" in row]
    assert returns[-1] == 6, returns
    assert "head plain" in out and "reward=following" in out and "exploration=stubborn" in out
    assert "Following" not in out and "Stubborn" not in out


def facts(trainer: Trainer) -> dict[str, Any]:
    return vars(trainer.components.context)


def test_facts_are_of_the_built_parts(build: Build) -> None:
    """Bug: a fact that stays at its default, so that what a part says of itself is not heard by the others."""
    plain, own = facts(build()), facts(build("head=plain", "reward=following", "projection=own_dueling", "target=none"))
    assert plain["is_match_indicator"] and not own["is_match_indicator"]
    assert own["has_value_stream"] and not plain["has_value_stream"]
    assert plain["has_target_copy"] and not own["has_target_copy"]
    assert own["option"]("reward") == "following" and plain["option"]("reward") == "exact_match"
