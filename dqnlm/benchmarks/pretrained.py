"""pretrained: one ILQL update with LoRA against one supervised LoRA step by plain transformers and peft, of the same batch.

The batch: 8 rows of 28 tokens, prompts of 8 tokens and answers of 20, the loss on the answers. Peak memory is that of a process
of its own for each side.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dqnlm.benchmarks.runs import built
from dqnlm.benchmarks.timing import Row, alternate, compared
from dqnlm.networks.fixed_weights import is_fixed
from dqnlm.training.trainer import Trainer

ROWS, PROMPT, ANSWER, RANK = 8, 8, 20, 8
MIB = 2**20
SIDES = ("ilql", "supervised")


def rows(rounds: int, model: str, device: str) -> Iterator[Row]:
    """Time and peak memory, as ratios; then the size of the run's checkpoint."""
    with tempfile.TemporaryDirectory(prefix="dqnlm-bench-") as folder:
        log = write_log(Path(folder) / "log.jsonl", model)
        with built(*settings(log, model, device)) as ours:
            update = _update(ours)
            times = alternate({"ilql": update, "supervised": supervised(model, _ids(ours), device)}, rounds)
            sides = f"ILQL update / supervised LoRA step, {ROWS} x {PROMPT + ANSWER} tokens"
            yield compared("pretrained", sides, times, "<= 1.40")
            yield _checkpoint(ours)
        peaks = [_peak(side, log, model, device) for side in SIDES]
        note = "peak of a process of its own, the interpreter and the loading of the model included"
        yield Row(
            "pretrained", "the same, peak memory", peaks[0] / MIB, peaks[1] / MIB, "MiB", peaks[0] / peaks[1], "<= 1.25", note
        )


def settings(log: Path, model: str, device: str) -> tuple[str, ...]:
    return (
        "+experiment=logged_pretrained", f"network.name_or_path={model}", f"network.lora_rank={RANK}", f"data.path={log}",
        f"network.context={PROMPT + ANSWER}", f"trainer.batch_size={ROWS}", "data.heldout_by=row", f"device={device}",
    )  # fmt: skip


def write_log(path: Path, model: str) -> Path:
    """Random tokens of the model's, in rows of one length, as a log of token ids would be."""
    from dqnlm.data.tokenizers.pretrained import read

    tokenizer, generator = read(model), torch.Generator().manual_seed(0)
    words = [w for i in range(300, min(tokenizer.vocabulary_size, 20300)) if (w := tokenizer.decode([i])).strip().isalpha()]
    single = [w for w in words if w.startswith(" ") and len(tokenizer.encode(w)) == 1] or words

    def text(tokens: int) -> str:
        return "".join(single[int(i)] for i in torch.randint(len(single), (tokens,), generator=generator))

    lines = [{"prompt": text(PROMPT), "completion": text(ANSWER - 1), "reward": i % 3} for i in range(4 * ROWS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _update(trainer: Trainer) -> Callable[[], object]:
    parts = trainer.components
    batch = parts.buffer.sample(ROWS)
    return lambda: parts.learner.update(batch)


def _ids(trainer: Trainer) -> Tensor:
    return trainer.components.buffer.sample(ROWS).observation_BS


def supervised(model: str, ids_BS: Tensor, device: str) -> Callable[[], object]:
    """One step of LoRA fine-tuning as transformers and peft do it: all logits, cross-entropy of the answers, AdamW."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    base = base.to(device)
    network = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    network.train()
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4, fused=True)
    labels_BS = ids_BS.clone()
    labels_BS[:, :PROMPT] = -100

    def step() -> None:
        optimizer.zero_grad()
        loss = network(input_ids=ids_BS, labels=labels_BS, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0, foreach=True)
        optimizer.step()

    return step


def _checkpoint(trainer: Trainer) -> Row:
    """Bytes of a checkpoint against those of the weights that are learned."""
    from dqnlm.training.saved_state import policy_state, training_state

    parts = trainer.components
    path = parts.checkpoints.save(1, policy_state(parts), training_state(parts, {}))
    size = sum(file.stat().st_size for file in path.iterdir())
    network, heads = parts.policy.network, parts.learner.target.network.projections
    kept = {id(p): p for p in (*network.parameters(), *heads.parameters()) if p.requires_grad or not is_fixed(p)}
    learned = sum(p.numel() * p.element_size() for p in kept.values())
    sides = "checkpoint / adapters and heads (the target's too)"
    return Row(
        "pretrained", sides, size / MIB, learned / MIB, "MiB", size / learned, "<= 3",
        "both moments of the optimizer, tokenizer and replay buffer included",
    )  # fmt: skip


def _peak(side: str, log: Path, model: str, device: str) -> float:
    """Bytes at most of a process that makes four steps of one side."""
    command = [sys.executable, "-m", "dqnlm.benchmarks.pretrained", side, str(log), model, device, str(torch.get_num_threads())]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.split()[-1])


def _high_water() -> int:
    """Bytes of memory that this process has had at most. (getrusage would count the parent's at the fork as well.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _main(side: str, log: str, model: str, device: str, threads: str) -> None:
    """The process of `_peak`."""
    torch.set_num_threads(int(threads))
    if side == "ilql":
        with built(*settings(Path(log), model, device)) as ours:
            work = _update(ours)
            for _ in range(4):
                work()
    else:
        work = supervised(model, torch.randint(1000, (ROWS, PROMPT + ANSWER), device=device), device)
        for _ in range(4):
            work()
    on_cuda = torch.device(device).type == "cuda"
    print(torch.cuda.max_memory_allocated() if on_cuda else _high_water())


if __name__ == "__main__":
    _main(*sys.argv[1:])
