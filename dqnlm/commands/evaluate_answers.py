"""`dqnlm eval` of a run that answers prompts: sacreBLEU's metrics with signatures, the run's reward, and examples."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.data.pairs.files import TextPair
from dqnlm.data.parts import Part
from dqnlm.errors import UserError
from dqnlm.evaluation.decoding import Decoding, answer_ids
from dqnlm.evaluation.scores import scores
from dqnlm.metrics import Metrics
from dqnlm.runs.test_looks import part_in_words
from dqnlm.tasks.answers import AnswersTask
from dqnlm.utils.files import write_text_atomic


class Answered(NamedTuple):
    """Answers to a whole part of the data.

    Attributes:
        pairs: the prompts and references.
        texts: the answers.
        reward_E: summed reward of each.
        metrics: corpus metrics: those of `dqnlm.evaluation.scores`, eval/return and its standard error over the answers.
        signatures: metric -> sacreBLEU's signature.
    """

    pairs: list[TextPair]
    texts: list[str]
    reward_E: Tensor
    metrics: Metrics
    signatures: dict[str, str]


def answer_part(policy: Policy, task: AnswersTask, part: Part, decoding: Decoding, progress: bool = False) -> Answered:
    """Answers every prompt of a part and scores the answers.

    Raises:
        UserError: as `answer_ids`.
    """
    pairs, eos_id = task.data.part(part), task.data.eos_id
    env = task.make_env_on(pairs, 0, num_envs=len(pairs.texts))  # its copy i answers prompt i
    answers = answer_ids(policy, [pair.prompt for pair in pairs.texts], env.max_new_tokens, decoding, progress)
    texts = [policy.tokenizer.decode([i for i in ids if i != eos_id]) for ids in answers]
    env.prompts()
    action_EH = torch.zeros(len(answers), env.max_new_tokens, dtype=torch.int64)
    for row_H, ids in zip(action_EH, answers, strict=True):
        row_H[: len(ids)] = torch.tensor(ids)
    length_E = torch.tensor([len(ids) for ids in answers])
    reward_E = env.score_completions(action_EH.to(env.device), length_E.to(env.device)).reward_BT.sum(1).cpu()
    metrics, signatures = scores(texts, [pair.answer for pair in pairs.texts])
    metrics["eval/return"] = float(reward_E.mean())
    metrics["eval/return_error"] = float(reward_E.std() / len(answers) ** 0.5) if len(answers) > 1 else 0.0
    return Answered(pairs.texts, texts, reward_E, metrics, signatures)


def evaluate_answers(
    policy: Policy, task: AnswersTask, arguments: argparse.Namespace, look: Callable[[], int | None]
) -> int:
    """Prints the metrics (or one JSON object) and three answers; with `--save` writes all answers to a JSONL file.

    `look` counts a look at the test part, after the options are checked.

    Raises:
        UserError: as `answer_part` or `look`, or the file is there already or cannot be written.
    """
    decoding = Decoding(arguments.beam, arguments.temperature, arguments.seed or 0)
    if arguments.seed is not None and arguments.temperature is None:
        raise UserError("--seed is of the draws that --temperature makes; leave it out, or give a temperature")
    if arguments.save is not None and Path(arguments.save).exists():
        raise UserError(f"--save: {arguments.save} is there already; give another name")
    looks = look()
    answered = answer_part(policy, task, task.part, decoding, progress=not arguments.json)
    if arguments.save is not None:
        _save(answered, Path(arguments.save))
    if arguments.json:
        about = {"step": policy.step, "checkpoint": arguments.checkpoint, "part": task.part, "decoding": str(decoding)}
        about |= {} if looks is None else {"test_looks": looks}
        print(json.dumps(about | answered.metrics | answered.signatures))
        return 0
    console = Console(highlight=False)
    console.print(
        f"{arguments.run}, checkpoint {arguments.checkpoint} (step {policy.step}), {part_in_words(task.part, looks)}: "
        f"{len(answered.texts):,} pairs scored, {task.data.left_out[task.part]:,} left out (too long, or empty), {decoding}"
    )
    for name, value in answered.metrics.items():
        short = name.removeprefix("eval/")
        console.print(f"{short:<22}{value:8.3f}  {answered.signatures.get(short, '')}", markup=False)
    for pair, text in list(zip(answered.pairs, answered.texts, strict=True))[:3]:
        console.rule("sample")
        console.print(f"prompt     {pair.prompt}\nanswer     {text}\nreference  {pair.answer}", markup=False)
    return 0


def _save(answered: Answered, path: Path) -> None:
    """Writes one object per line: prompt, completion, reference, reward."""
    lines = [
        json.dumps(
            {"prompt": pair.prompt, "completion": text, "reference": pair.answer, "reward": reward}, ensure_ascii=False
        )
        for pair, text, reward in zip(answered.pairs, answered.texts, answered.reward_E.tolist(), strict=True)
    ]
    try:
        write_text_atomic(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise UserError(f"--save: {path} cannot be written: {error.strerror}") from error
