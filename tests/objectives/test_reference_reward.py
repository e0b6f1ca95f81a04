"""log pi_ref as a part of the reward: by hand, its fixed point on a tree of episodes, and through a run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.errors import UserError
from dqnlm.objectives.bootstrap import Soft
from dqnlm.objectives.reference import ReferenceReward
from dqnlm.objectives.returns import MonteCarlo, OneStep, Returns
from dqnlm.runs.directory import RunDirectory
from tests.helpers import runs as tools
from tests.helpers.batches import decisions, make_batch
from tests.helpers.learners import HEADS
from tests.objectives.test_fixed_points import make_td, scalar, table_learner

LN2 = 0.6931472


def test_rewards_by_hand() -> None:
    """Q_ref is T log 1, T log 2, T log 5 with T = 2, so pi_ref is 1/8, 2/8, 5/8; action 1 is paid w log 1/4 = -2 w ln 2 more.

    Bug: steps that are no decision paid too, the temperature forgotten, times before `first` shifted, or rewards of the buffer
    changed in place. With action 0 forbidden pi_ref is 2/7, 5/7.
    """
    q_BTA = 2.0 * torch.tensor([1.0, 2.0, 5.0]).log().expand(1, 3, 3)
    reward_BT = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    batch = make_batch([[0, 1, 1, 2]], mask_BT=[[0.0, 1.0, 0.0, 1.0]], first=1)
    batch.reward_BT = reward_BT
    reward = ReferenceReward(HEADS["squared"](), 0.5, 2.0)
    paid, log_BT = reward({"q": q_BTA[..., None]}, decisions(batch))
    expected = [1 - 0.5 * 2 * LN2, 1.0, 1 + 0.5 * float(torch.tensor(5 / 8).log())]
    torch.testing.assert_close(paid.reward_BT, torch.tensor([expected]))
    torch.testing.assert_close(log_BT.exp(), torch.tensor([[2 / 8, 2 / 8, 5 / 8]]))
    assert reward_BT.tolist() == [[0.0, 1.0, 1.0, 1.0]]
    legal_A = torch.tensor([False, True, True])
    _, log_BT = reward({"q": q_BTA[..., None]}, decisions(batch, legal_A))
    torch.testing.assert_close(log_BT.exp(), torch.tensor([[2 / 7, 2 / 7, 5 / 7]]))


@pytest.mark.parametrize("returns", [OneStep(), MonteCarlo()], ids=["one_step", "monte_carlo"])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_soft_td_finds_the_tilted_reference(returns: Returns, temperature: float) -> None:
    """Bug: the prior of the wrong state or action, another temperature, or a reference that learns with the rest.

    A tree of depth 3 as in test_fixed_points, every episode in the batch, gamma 1, w = T = .3. An episode with actions a and
    return R must get the probability pi_ref(a) exp(R / T) / Z, pi_ref the product of softmax(Q_ref / T_ref) along it. With
    Monte-Carlo returns no value is asked for, and Q is the mean over the uniform data instead: r + w log pi_ref, summed on.
    """
    depth, nodes, weight = 3, 7, 0.3
    draw = torch.Generator().manual_seed(5)
    reward, q_ref = torch.rand(nodes, 2, generator=draw), torch.randn(nodes, 2, generator=draw)
    table = list(itertools.product(range(2), repeat=depth))
    node_BT = torch.tensor([[2**t - 1 + int("0" + "".join(map(str, a[:t])), 2) for t in range(depth)] for a in table])
    action_BT = torch.tensor(table)
    observation_BS = torch.cat([node_BT, node_BT[:, -1:]], 1)
    batch = make_batch(action_BT, reward[node_BT, action_BT], [1.0, 1.0, 0.0], observation_BS=observation_BS)
    head = scalar()
    learner = table_learner(
        {"td": make_td(head, Soft(temperature=weight), returns)}, head, states=nodes, actions=2, updates=1000,
        kl_weight=weight, kl_temperature=temperature,
    )  # fmt: skip
    assert learner.reference is not None
    with torch.no_grad():
        learner.reference.projections["q"].linear.weight.copy_(q_ref.T)  # type: ignore[union-attr,operator]
    for _ in range(1000):
        learner.update(batch)
    with torch.no_grad():
        found_SA = head.value(learner.network(torch.arange(nodes)[:, None])["q"])[:, 0]
    prior_SA = (q_ref / temperature).log_softmax(-1)
    if isinstance(returns, MonteCarlo):
        paid_SA = reward + weight * prior_SA
        mean_SA = paid_SA.clone()
        for node in reversed(range(3)):
            mean_SA[node] += mean_SA[2 * node + 1 : 2 * node + 3].mean(-1)
        torch.testing.assert_close(found_SA, mean_SA, atol=0.02, rtol=0)
        return
    policy_B = (found_SA / weight).log_softmax(-1)[node_BT, action_BT].sum(1).exp()
    tilted_B = (prior_SA[node_BT, action_BT].sum(1) + reward[node_BT, action_BT].sum(1) / weight).softmax(0)
    torch.testing.assert_close(policy_B, tilted_B, atol=0.01, rtol=0)
    assert float((tilted_B - 1 / 8).abs().max()) > 0.1, "a problem that tells nothing"


SETTINGS = [
    "env.transition=free", "bootstrap=soft", "head.loss=huber", "gamma=1", "env.prompt_length=3",
    "learner.kl_weight=0.5", "bootstrap.temperature=0.5", "pretraining.updates=6", "trainer.rollouts=8",
]  # fmt: skip


def test_a_run_resumes_with_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a reference that is made anew, from the policy as it stands where the run was killed."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "whole", text, *SETTINGS)
    tools.at_rollout(monkeypatch, 10, tools.kill)
    with pytest.raises(tools.Killed):
        tools.start(tmp_path / "cut", text, *SETTINGS)
    launch.resume(tmp_path / "cut", [])
    tools.assert_same_run(tmp_path / "cut", tmp_path / "whole")
    logged = [line["reference/log_probability"] for line in tools.metrics(tmp_path / "whole") if "loss/td" in line]
    assert logged and all(value < 0 for value in logged)
    saved = tools.state(tmp_path / "whole")
    assert tools.differences(saved["training"]["learner"]["reference"], saved["policy"]["network"])
    for change in ("learner.kl_weight=0.4", "learner.kl_temperature=2"):
        with pytest.raises(UserError, match="cannot change on a resume"):
            launch.resume(tmp_path / "whole", [change, "trainer.rollouts=20"])


def test_the_reference_is_the_cloned_policy_and_is_read(tmp_path: Path) -> None:
    """Bug: a weight that nothing reads: the same batch with another weight gives another loss."""
    text = tools.write_text(tmp_path / "text.txt")
    losses = []
    for weight in (0.5, 2.0):
        checked, _ = tools.settings(tools.tiny(text, *SETTINGS, f"learner.kl_weight={weight}"))
        run = RunDirectory(tmp_path / str(weight))
        run.path.mkdir()
        trainer = launch.build(checked, run)
        while trainer.phase.name == "pretraining":
            trainer.train_round(trainer.phase)
        learner = trainer.components.learner
        assert learner.reference is not None
        cloned = learner.network.state_dict()
        assert all(torch.equal(value, cloned[name]) for name, value in learner.reference.state_dict().items())
        trainer.components.accumulator.pop_means()
        trainer.train_round(trainer.phase)
        losses.append(trainer.components.accumulator.pop_means()["loss/td"])
    assert losses[0] != losses[1]
