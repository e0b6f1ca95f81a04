"""The warm start clones before all else, the reference policy is where it ended, and demonstrations stand in batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.envs.continuation import Continuation
from dqnlm.errors import UserError
from dqnlm.objectives.base import Objective
from dqnlm.objectives.cross_entropy import CrossEntropy
from dqnlm.objectives.large_margin import LargeMargin
from dqnlm.rewards.exact_match import ExactMatch
from dqnlm.runs.directory import RunDirectory
from dqnlm.types import DECISION, TERMINATED, Batch, Rows
from tests.helpers import runs as tools
from tests.helpers.batches import T, make_batch, random_batch
from tests.helpers.learners import HEADS, assert_close, cross_entropy, figures, gradient, make_learner, make_td

CPU = torch.device("cpu")
SOFT = [
    "env.transition=free", "algorithm=tbrm", "objective.trajectory.reference=start", "objective.trajectory.temperature=1.0",
    "pretraining.updates=30", "env.prompt_length=3", "optimizer=adam", "optimizer.lr=1e-2",
]  # fmt: skip


def test_cloning_then_rollouts(tmp_path: Path) -> None:
    """Bug: no cloning, a reference policy from before it, or one that moves with the online network.

    The text has 9 characters, so -log p of a uniform guess is 2.2. Thirty updates of 4 x 8 characters at 1e-2 bring it to 1.34
    to 1.57 with twelve seeds.
    """
    text = tools.write_text(tmp_path / "text.txt")
    checked, _ = tools.settings(tools.tiny(text, *SOFT))
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    trainer = launch.build(checked, run)
    parts = trainer.components
    while trainer.phase.name == "pretraining":
        trainer.train_round(trainer.phase)
    assert parts.updates == 30 and parts.learner.updates == 0 and parts.actor.env_steps == 0
    assert parts.accumulator.pop_means()["loss/pretraining"] > 0
    reference, online = parts.learner.reference, parts.learner.network
    assert reference is not None
    cloned = {name: value.clone() for name, value in online.state_dict().items()}
    assert all(torch.equal(value, reference.state_dict()[name]) for name, value in cloned.items())
    heldout = parts.evaluator.evaluate(parts.policy).metrics
    assert heldout["eval/nll_softmax"] < 1.8
    trainer.train_round(trainer.phase)
    trainer.train_round(trainer.phase)
    assert parts.learner.updates == 2 and parts.actor.env_steps > 0
    assert all(torch.equal(value, reference.state_dict()[name]) for name, value in cloned.items())
    assert not all(torch.equal(value, online.state_dict()[name]) for name, value in cloned.items())


def test_cloned_logits_are_near_log_probabilities(tmp_path: Path) -> None:
    """Bug: logits at an arbitrary level, so that the soft value starts at a number that means nothing."""
    text = tools.write_text(tmp_path / "text.txt")
    summary = tools.start(
        tmp_path / "run", text, *SOFT, "pretraining.updates=150", "trainer.rollouts=1", "optimizer.lr=1e-5",
        "pretraining.lr=1e-2", "evaluation.every=100",
    )  # fmt: skip
    assert abs(summary["last"]["value/mean"]) < 0.6  # log 9 = 2.2 for logits around 0


def test_only_a_warm_start(tmp_path: Path) -> None:
    text = tools.write_text(tmp_path / "text.txt")
    summary = tools.start(tmp_path / "run", text, *SOFT, "trainer.rollouts=0")
    assert summary["totals"]["updates"] == 30 and summary["totals"]["env_steps"] == 0
    assert summary["status"] == "finished" and summary["last"]["eval/accuracy"] > 0


def test_a_resume_cannot_change_the_warm_start(tmp_path: Path) -> None:
    """Bug: cloning goes on over what was learned by reward, and target and reference stay behind."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "run", text, *SOFT, "trainer.rollouts=2")
    for change in ("pretraining.updates=60", "trainer.updates_per_rollout=3"):
        with pytest.raises(UserError, match="cannot change on a resume of a run with pretraining"):
            launch.resume(tmp_path / "run", [change])


def test_scaled_beginnings(tmp_path: Path) -> None:
    """Bug: a factor that reaches other layers than the last. Q of the new run is .5 times that of the old one."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "old", text, *SOFT, "projection=dueling", "trainer.rollouts=0")
    token_BS = torch.randint(8, (2, 6), generator=torch.Generator().manual_seed(0))

    def q_of(name: str, *overrides: str) -> torch.Tensor:
        checked, _ = tools.settings(tools.tiny(text, *SOFT, "projection=dueling", *overrides))
        run = RunDirectory(tmp_path / name)
        run.path.mkdir()
        return launch.build(checked, run).components.policy.network(token_BS)["q"].detach()

    old = f"pretraining.init_from={tmp_path / 'old'}"
    torch.testing.assert_close(q_of("half", old, "pretraining.init_scale=0.5"), 0.5 * q_of("whole", old))
    for name, change, message in (("zero", "pretraining.init_scale=0", "above 0"),):
        with pytest.raises(UserError, match=message):
            q_of(name, old, change)


def demonstrations(reward_of_match: float = 1.0) -> Rows:
    corpus = torch.arange(50) % 7
    reward = ExactMatch(7, match=reward_of_match, mismatch=0.0)
    env = Continuation(
        corpus, reward, 7, None, None, CPU, 0, num_envs=2, guesses_per_position=1, prompt_length=3, horizon=4, transition="free",
        horizon_end="terminate", stop_token=None, allowed=None,
    )  # fmt: skip
    before = env.state_dict()["window_ES"].clone()
    rows = env.demonstrate(5, torch.Generator().manual_seed(1), with_rewards=True)
    assert torch.equal(before, env.state_dict()["window_ES"])
    return rows


def test_a_demonstration_is_a_row_of_the_task() -> None:
    """Bug: rewards of another reference, decisions inside the prompt, an end that is none, or running episodes disturbed."""
    rows = demonstrations(2.0)
    assert torch.equal(rows.action_BT, rows.observation_BS[:, 1:]) and rows.length_B.tolist() == [6] * 5
    assert ((rows.observation_BS[:, 1:] - rows.observation_BS[:, :-1]) % 7 == 1).all()
    assert (rows.flag_BT == torch.tensor([0, 0, 1, 1, 1, DECISION | TERMINATED])).all()
    assert (rows.reward_BT == torch.tensor([0.0, 0.0, 2.0, 2.0, 2.0, 2.0])).all()


def test_joined_batches() -> None:
    """Bug: a field that is not joined, or rows in another order."""
    batch = Batch.from_rows(demonstrations(), 0.5, 2)
    assert batch.discount_BT[0].tolist() == [1.0, 1.0, 0.5, 0.5, 0.5, 0.0] and batch.mask_BT[0].sum() == 4
    both = batch.concat(batch)
    assert both.first == 2 and len(both.length_B) == 10
    earlier = Batch.from_rows(demonstrations(), 0.5, 1)
    assert batch.concat(earlier).first == 1 == earlier.concat(batch).first, "no decision of either is cut off"
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(both, name), torch.cat([value, value])), name


@pytest.mark.parametrize("objective", [LargeMargin(HEADS["squared"](), weight=1.0, margin=0.5), cross_entropy()])
@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_the_agents_own_actions_are_not_cloned(objective: Objective, micro_batch_size: int | None) -> None:
    """Bug: the margin of DQfD, or cross-entropy, on rows of the agent's own play, which makes its mistakes firm.

    Of four rows two are demonstrations: the gradient is half of that of these two alone (the mean is over all decisions).
    """
    batch = random_batch(end=TERMINATED)
    batch.length_B[:], batch.mask_BT[:] = T, 1.0
    demonstrated = [2, 3]
    alone = Batch(**{n: x[demonstrated] if isinstance(x, torch.Tensor) else x for n, x in vars(batch).items()})
    batch.own_B = torch.tensor([True, True, False, False])
    mixed = make_learner(objective, micro_batch_size=micro_batch_size)
    found, expected = gradient(mixed, batch), gradient(make_learner(objective), alone)
    assert_close([2 * x for x in found], expected)
    assert figures(mixed)["loss/cross_entropy" if isinstance(objective, CrossEntropy) else "loss/td"] > 0
    batch.own_B = torch.ones(4, dtype=torch.bool)
    assert all(not x.any() for x in gradient(make_learner(objective), batch))


def test_rewards_of_own_rows_are_learned_beside_a_margin() -> None:
    """Bug: own rows left out of all objectives, so that nothing is learned by trial and error."""
    batch = random_batch()
    plain = gradient(make_learner(make_td()), batch)
    batch.own_B = torch.ones(4, dtype=torch.bool)
    assert_close(gradient(make_learner(make_td()), batch), plain)


@pytest.mark.parametrize("share, own", [(0.0, 4), (0.5, 2), (0.99, 1)])
def test_share_of_demonstrations(share: float, own: int, tmp_path: Path) -> None:
    """Bug: a share that nothing reads. Rows from the buffer have a place in it, demonstrations have none."""
    text = tools.write_text(tmp_path / "text.txt")
    checked, _ = tools.settings(
        tools.tiny(text, *SOFT, "pretraining.updates=0", f"trainer.demonstration_fraction={share}")
    )
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    trainer = launch.build(checked, run)
    trainer.components.actor.rollout()
    batch = trainer.phase.sampler.sample()
    assert (batch.index_B >= 0).sum() == own and len(batch.index_B) == 4


def test_what_no_row_has_is_cut_off() -> None:
    """Bug: a decision cut off, the last observation lost, or `first` that no longer says where outputs begin.

    Rows of lengths 5 and 4 with their first decisions at 2 and 3, in tensors of width 8: times 0 to 4 stay, the first is 2.
    """
    mask_BT = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0]]).float()
    observation_BS, wide_BT = torch.arange(18).view(2, 9), torch.arange(16.0).view(2, 8)
    batch = make_batch(observation_BS[:, 1:], wide_BT, wide_BT, mask_BT, observation_BS, length_B=[5, 4], first=1)
    cut = batch.trim()
    assert cut.first == 2 and torch.equal(cut.observation_BS, observation_BS[:, :6])
    for name in ("action_BT", "reward_BT", "discount_BT", "mask_BT"):
        assert torch.equal(getattr(cut, name), getattr(batch, name)[:, :5])
    assert cut.mask_BT[:, cut.first :].sum() == mask_BT.sum() and torch.equal(cut.weight_B, batch.weight_B)
