"""A pretrained model divided among processes (gloo): the same as in one process, exact resume, parts that are parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dqnlm import load_policy
from dqnlm.cli import main
from dqnlm.errors import UserError
from dqnlm.utils import permissions
from dqnlm.utils.process_group import Group
from dqnlm.utils.ranks import ALONE
from tests.helpers import runs as tools
from tests.helpers.processes import run, torchrun

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("peft", reason="network.lora_rank needs peft")

from tests.helpers import pretrained, sharding_worker


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_with_a_part_each_learn_what_one_process_learns(processes: int, tmp_path: Path) -> None:
    """Bug: gradients that are averaged, added up twice, or lost between micro-batches; a norm of one part; whole weights
    on every rank; a moment that is restored at another place; ranks that wait for one another where they act."""
    for kind in sharding_worker.FOLDERS:
        pretrained.write(tmp_path / kind, kind)
    with torchrun(processes, "-m", "tests.helpers.sharding_worker", str(tmp_path)) as process:
        _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(processes)]
    for case in sharding_worker.CASES:
        one, several = sharding_worker.trained(tmp_path, case, ALONE), ranks[0][case.name]
        for mine, whole in zip(several["figures"], one["figures"], strict=True):
            assert mine == pytest.approx(whole, rel=1e-5, abs=1e-5)
        clipped = [figures["grad/norm"] > sharding_worker.CLIP for figures in one["figures"]]
        assert any(clipped), "the norm counts"
        for part in ("network", "target"):
            for name, weight in one["state"][part].items():
                torch.testing.assert_close(several["state"][part][name], weight, rtol=1e-5, atol=1e-5)
        for other in ranks:
            assert not tools.differences(other[case.name]["resumed"], several["state"])
    alone = sharding_worker.acted(sharding_worker.network_of(tmp_path, sharding_worker.CASES[0], ALONE), 3 * processes - 1)
    for rank, other in enumerate(ranks):
        shares = other["shares"]
        values = shares.pop("acted")
        assert len(values) == 2 + 3 * rank
        torch.testing.assert_close(values, alone[: len(values)])
        assert set(shares) == {"weights at first", "weights", "gradients", "moments"}
        # 16 rows among three are 6, 6 and 4; what FSDP sends is padded to 6 everywhere.
        assert all(0.8 / processes < share < 1.2 / processes for share in shares.values()), shares
        assert [text.partition("set ")[2] for text in other["refusals"]] == [
            "target.heads_only=true (or target=none)", "optimizer=adamw",
            "network.shard=false, or learn without the reference", "learner.compile=false",
        ]  # fmt: skip


def tiny(root: Path, *more: str) -> list[str]:
    """A run that clones, plays step by step, and draws by priorities, on a tiny GPT-2 in `root`."""
    text = tools.write_text(root / "text.txt")
    model = root / "model"
    if not model.exists():
        pretrained.write(model, alphabet="".join(sorted(set(text.read_text()))))
    words = tools.tiny(
        text, "network=pretrained", f"network.name_or_path={model}", f"data.tokenizer={model}", "network.context=10",
        "network.dropout=0.1", "network.shard=true", "target.heads_only=true", "env.transition=free", "env.num_envs=6",
        "trainer.rollout_steps=5", "trainer.learning_starts=48", "trainer.batch_size=6", "buffer=prioritized",
        "head=scalar", "head.loss=squared", "pretraining.updates=3", "checkpoint.keep_last=9", *more,
    )  # fmt: skip
    return ["train", *words]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes with a part each."""
    root = tmp_path_factory.mktemp("sharding")
    code, said = run(2, *tiny(root), f"hydra.run.dir={root / 'whole'}")
    assert code == 0, said
    assert "the trunk is divided among 2 processes" in " ".join(said.split())
    return root / "whole"


@pytest.mark.slow
def test_resumed_it_ends_as_if_never_stopped(whole: Path, tmp_path: Path) -> None:
    """Bug: weights or moments that come back at another rank, or a part of them that does not."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    later = sorted((folder / "checkpoints").glob("step-*"))[3:]
    assert len(later) >= 2
    for checkpoint in later:
        shutil.rmtree(checkpoint)
    code, said = run(2, "resume", str(folder))
    assert code == 0, said
    tools.assert_same_run(folder, whole)


@pytest.mark.slow
def test_one_process_reads_it_and_goes_on(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a checkpoint of one part, or one that only as many processes can read; moments of other weights."""
    permissions.forget_permissions()
    saved = torch.load(sorted((whole / "checkpoints").glob("step-*"))[-1] / "policy.pt", weights_only=True)
    policy = load_policy(whole, "last", device="cpu")
    assert not tools.differences(dict(policy.network.state_dict()), dict(saved["network"]))
    assert len(policy.generate("the ", max_tokens=5, n=2)) == 2
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    capsys.readouterr()
    assert main(["resume", str(folder), "trainer.rollouts=13", "--reshard"]) == 0
    assert "network.shard: one process holds the whole model" in capsys.readouterr().out
    assert json.loads((folder / "summary.json").read_text())["totals"]["rollouts"] == 16  # 3 of them pretraining


@pytest.mark.slow
def test_it_is_the_run_of_two_processes_with_all_weights(whole: Path) -> None:
    """Bug: a rank that acts by weights of before, or an evaluation by them."""
    folder = whole.parent / "unsharded"
    code, said = run(2, *tiny(whole.parent, "network.shard=false"), f"hydra.run.dir={folder}")
    assert code == 0, said
    for mine, other in zip(tools.metrics(whole), tools.metrics(folder), strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-5)


def test_a_lost_rank_is_told_from_other_errors() -> None:
    """Bug: a traceback of gloo's where a rank died in a backward, or a mistake of ours that is called a death."""
    group = Group(0, 2, 0)
    with pytest.raises(UserError, match="process 0 of 2 has lost another one"), group.explaining_losses():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), group.explaining_losses():
        raise RuntimeError("shapes do not fit")
