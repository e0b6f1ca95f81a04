#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""TRL's GRPO with LoRA on the study's prompts and reward: held-out reward against generated tokens, for comparison.

    scripts/python studies/sentiment/grpo.py MODEL FILE.jsonl --seed 0

TRL is no dependency of dqnlm. To install it beside: pip install --no-deps trl==1.16.0 (all that it needs is there with the
extra `pretrained`), here or in an environment of its own with this checkout in PYTHONPATH.

A step samples 8 completions for each of 4 prompts and makes one update with these: as many updates for a completion as
+experiment=prompts makes (two for 64). Adapters of rank 8 on all linear layers, constant learning rate.

The KL penalty: TRL divides rewards by their deviation in a group, at first about .36, and penalises each token; so `--kl 0.28`
weighs the KL of a completion by .1, as +experiment=prompts does (reward.scale=10). With TRL's own default, 0, and a rate of
3e-3, all completions were "love love love ..." after 10 steps (reward .998, distinct-2 .005): without a penalty the reward
alone says little.

A line of FILE.jsonl for each evaluation, and for each step: step, tokens (generated so far, for training alone), wall_s and
cpu_s (of training; evaluations left out), and reward (of the step's completions) or heldout (mean over held-out prompts)
with nats (a token, under the model as it was) and distinct_2. With --save FOLDER the merged model is written there, for
measure.py.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from studies.sentiment.measure import described
from studies.sentiment.reward import score
from studies.sentiment.sampling import HELDOUT, PROMPTS, load, read_prompts, sample

PROMPTS_A_STEP, GROUP, RANK = 4, 8, 8


class Record:
    """Counts generated tokens and the seconds of training; writes lines. It begins paused."""

    def __init__(self, file: Path) -> None:
        self.file, self.tokens, self.step = file, 0, 0
        self.wall_s = self.cpu_s = 0.0  # of training, up to the last pause
        self._began = (0.0, 0.0)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("", encoding="utf-8")

    def pause(self) -> None:
        """Seconds from here to `go_on` do not count."""
        self.wall_s += time.perf_counter() - self._began[0]
        self.cpu_s += time.process_time() - self._began[1]

    def go_on(self) -> None:
        """Seconds from here to `pause` count."""
        self._began = (time.perf_counter(), time.process_time())

    def write(self, **values: Any) -> None:
        """A line of the file, and on the terminal without texts."""
        seconds = {"wall_s": round(self.wall_s, 1), "cpu_s": round(self.cpu_s, 1)}
        row = {"step": self.step, "tokens": self.tokens, **seconds, **values}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(json.dumps({k: v for k, v in row.items() if k != "texts"}), flush=True)

    def reward(self, prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        """The reward in TRL's form."""
        self.tokens += sum(len(ids) for ids in completion_ids)
        rewards = score(prompts, completions, [""] * len(prompts))
        self.pause()
        self.write(reward=sum(rewards) / len(rewards))
        self.go_on()
        return rewards


def evaluate(model: Any, tokenizer: Any, each: int, tokens: int) -> dict[str, Any]:
    """The same draws at every evaluation; training's random numbers are left as they were."""
    training = model.training
    with torch.random.fork_rng():
        torch.manual_seed(1000)
        texts = sample(model.eval(), tokenizer, read_prompts(HELDOUT), each, tokens)
    with model.disable_adapter():  # the model as it was
        found = described([text[:2] for text in texts], model, tokenizer)
    model.train(training)
    return {"heldout": found.pop("reward"), **found}


def settings(arguments: argparse.Namespace, folder: str) -> Any:
    """TRL's settings, in float32; the rest is as its defaults where it is not named."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=folder, use_cpu=not torch.cuda.is_available(), bf16=False,
        seed=arguments.seed, max_steps=arguments.steps, save_strategy="no",
        report_to="none", logging_steps=1, disable_tqdm=True, learning_rate=arguments.lr, lr_scheduler_type="constant",
        per_device_train_batch_size=PROMPTS_A_STEP * GROUP, num_generations=GROUP, gradient_accumulation_steps=1,
        num_iterations=arguments.iterations,
        max_completion_length=arguments.tokens, temperature=1.0, top_k=0, top_p=1.0, beta=arguments.kl,
        gradient_checkpointing=False,  # activations of 32 rows of 28 tokens fit
    )  # fmt: skip


def trainer_of(arguments: argparse.Namespace, record: Record, folder: str) -> Any:
    """A GRPOTrainer that evaluates before the first step and each `arguments.every` steps, while there is time."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    start, tokenizer = load(arguments.model, torch.bfloat16 if arguments.bfloat16 else torch.float32)

    class Evaluation(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            record.write(**evaluate(model, tokenizer, arguments.each, arguments.tokens))
            record.go_on()

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            record.pause()
            record.step = state.global_step
            control.should_training_stop |= record.wall_s > 60 * arguments.minutes
            if record.step % arguments.every == 0 or control.should_training_stop:
                record.write(**evaluate(model, tokenizer, arguments.each, arguments.tokens))
            record.go_on()

    return GRPOTrainer(
        model=start, processing_class=tokenizer, reward_funcs=record.reward,
        args=settings(arguments, folder), callbacks=[Evaluation()],
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in read_prompts(PROMPTS)]),
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", help="a folder, or a name on the Hub")
    parser.add_argument("file", type=Path, help="lines of JSON are written here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--kl", type=float, default=0.28, help="weight of the KL penalty, TRL's beta (default: 0.28)")
    parser.add_argument("--iterations", type=int, default=1, help="updates of a batch of completions (default: 1)")
    parser.add_argument("--steps", type=int, default=60, help="at most (default: 60)")
    parser.add_argument("--minutes", type=float, default=15.0, help="of training, evaluations left out (default: 15)")
    parser.add_argument("--every", type=int, default=10, help="steps between evaluations (default: 10)")
    parser.add_argument("--each", type=int, default=2, help="completions of each held-out prompt (default: 2)")
    parser.add_argument("--tokens", type=int, default=20, help="of a completion (default: 20)")
    parser.add_argument("--bfloat16", action="store_true", help="of the weights that never change; adapters stay float32")
    parser.add_argument("--save", type=Path, default=None, help="folder for the merged model (default: none)")
    arguments = parser.parse_args()
    import tempfile

    torch.manual_seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(arguments, Record(arguments.file), folder)
        trainer.train()
    if arguments.save is not None:
        trainer.model.float().merge_and_unload().save_pretrained(arguments.save)
        trainer.processing_class.save_pretrained(arguments.save)


if __name__ == "__main__":
    main()
