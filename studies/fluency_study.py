#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Does learning by reward make text more fluent, or only the reward greater? Three seeds against cloning further.

    scripts/python studies/fluency_study.py --text shakespeare.txt --seeds 0,1,2 --output-dir outputs/fluency

The text is cut in two halves. On the first, for each seed: a clone; from it `agent` (+experiment=shakespeare_fluency, learning
by reward in its own text) and `control` (cloned further, with as much compute: 2.5 updates for each of the agent's). The
reward's n-gram model and words are of the first half too. On the second half, once: a judge, a transformer trained by
cross-entropy, which no reward knows.

Measured on samples (temperature 1) after held-out prompts, the same for both: the reward, the judge's nats a character, and
distinct-2 of words. Since bolder text is easier to predict, the judge also compares at equal distinct-2: the control is
sampled at several temperatures, and its nats are read off where it has the agent's distinct-2. Intervals: Student's t over
the seeds' differences. A run whose summary is there is not trained again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dqnlm.agent.generation import generate
from dqnlm.agent.policy import Policy
from dqnlm.builder.loading import load_policy, load_policy_and_config
from dqnlm.envs.continuation import Continuation
from dqnlm.evaluation.scores import distinct_words
from dqnlm.rewards.base import Episodes
from dqnlm.tasks.base import build_data
from dqnlm.tasks.select import task_class
from studies.runs import interval, train

# Cloning updates in the time of one of the agent's: it reads each batch a third time for the reference policy, and writes texts.
COMPUTE = 2.5
TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


class Sampled(NamedTuple):
    """Of one policy at one temperature."""

    reward: float
    judge_nats: float
    distinct_2: float


def train_all(arguments: argparse.Namespace, halves: list[Path], extra: list[str]) -> None:
    """Judge, and clone, agent and control of each seed."""
    out = arguments.output_dir.resolve()
    first, second = (f"data.path={half}" for half in halves)
    for seed in arguments.seeds.split(","):
        common = ["+experiment=shakespeare_fluency", "data=text_file", first, f"seed={seed}", *extra]
        clone = out / f"clone_{seed}"
        train(clone, "trainer.rollouts=0", *common)
        start = [f"pretraining.init_from={clone}", *common]
        paid = train(out / f"agent_{seed}", "pretraining.updates=0", *start)
        updates = math.ceil(COMPUTE * paid["totals"]["updates"])
        train(
            out / f"control_{seed}",
            f"pretraining.updates={updates}",
            "pretraining.lr=2e-4",
            "trainer.rollouts=0",
            *start,
        )
    train(
        out / "judge",
        "+experiment=shakespeare_behaviour_cloning",
        "data=text_file",
        second,
        "trainer.rollouts=1500",
        "seed=0",
    )


@torch.no_grad()
def sample(run: Path, paid_by: Path, judge: Policy, temperature: float, episodes: int) -> Sampled:
    """Texts after held-out prompts, the same for every run of this text, paid by the reward of the run `paid_by`."""
    policy = load_policy(run, "last", device="cpu")
    _, config = load_policy_and_config(paid_by, "last", run.parent, "cpu")
    task = task_class(config)(config, build_data(config), policy.device)
    env = task.make_env(12345, evaluating=True, num_envs=episodes)
    assert isinstance(env, Continuation)
    env.reset()
    window_ES = env._window_ES
    prompt_EP, reference_EH = window_ES[:, : env.prompt_length], window_ES[:, env.prompt_length :]
    choose = policy.chooser("boltzmann", temperature, None, torch.Generator().manual_seed(7))
    completion_EH = torch.stack(list(generate(policy.network, prompt_EP, choose, env.horizon)), 1)
    full_E = torch.full((episodes,), env.prompt_length), torch.full((episodes,), env.horizon)
    reward_EH = env.reward.judge(Episodes(prompt_EP, full_E[0], completion_EH, full_E[1], reference_EH, full_E[1]))
    prompts = [policy.tokenizer.decode(row) for row in prompt_EP]
    texts = [policy.tokenizer.decode(row) for row in completion_EH]
    return Sampled(float(reward_EH.sum(1).mean()), judged(judge, prompts, texts), distinct_words(texts))


def judged(judge: Policy, prompts: list[str], texts: list[str]) -> float:
    """Nats a character of the texts after their prompts, under the judge's softmax(Q)."""
    ids: list[Tensor] = [judge.tokenizer.encode(p + t).long() for p, t in zip(prompts, texts, strict=True)]
    ids_BS, begin = torch.stack(ids)[:, -judge.network.context - 1 :], len(texts[0])
    log_BTA = judge.q(judge.network(ids_BS[:, :-1])).log_softmax(-1)
    taken_BT = log_BTA.gather(-1, ids_BS[:, 1:, None]).squeeze(-1)[:, -begin:]
    return -float(taken_BT[taken_BT.isfinite()].mean())  # the unknown character has no probability


def at_equal_diversity(control: list[Sampled], distinct_2: float) -> float:
    """The control's nats where its distinct-2 is that of the agent, linearly between temperatures."""
    ordered = sorted(control, key=lambda s: s.distinct_2)
    for low, high in itertools.pairwise(ordered):
        if low.distinct_2 <= distinct_2 <= high.distinct_2:
            share = (distinct_2 - low.distinct_2) / max(high.distinct_2 - low.distinct_2, 1e-12)
            return low.judge_nats + share * (high.judge_nats - low.judge_nats)
    return (ordered[0] if distinct_2 < ordered[0].distinct_2 else ordered[-1]).judge_nats


def main() -> int:
    """Trains what is not there, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--episodes", type=int, default=512, help="texts a policy and temperature (default: 512)")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/fluency"))
    parser.add_argument(
        "overrides", nargs="*", help="settings of clone, agent and control, such as reward.parts.lexicon.weight=5"
    )
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    text = arguments.text.read_text(encoding="utf-8")
    cut = text.index("\n\n", len(text) // 2) + 2
    halves = [arguments.output_dir.resolve() / name for name in ("first_half.txt", "second_half.txt")]
    for half, part in zip(halves, (text[:cut], text[cut:]), strict=True):
        half.write_text(part, encoding="utf-8")
    train_all(arguments, halves, arguments.overrides)
    out, judge = (
        arguments.output_dir.resolve(),
        load_policy(arguments.output_dir.resolve() / "judge", "last", device="cpu"),
    )
    print(
        "\n| seed | policy | temperature | reward | judge's nats | distinct-2 |\n| --- | --- | --- | --- | --- | --- |"
    )
    gains: dict[str, list[float]] = {
        "reward": [],
        "judge's nats at temperature 1": [],
        "judge's nats at equal distinct-2": [],
    }
    for seed in arguments.seeds.split(","):
        found = {}
        for name, temperatures in (("agent", TEMPERATURES[:1]), ("control", TEMPERATURES)):
            found[name] = [
                sample(out / f"{name}_{seed}", out / f"agent_{seed}", judge, t, arguments.episodes)
                for t in temperatures
            ]
            for t, s in zip(temperatures, found[name], strict=True):
                print(
                    f"| {seed} | {name} | {t} | {s.reward:.3f} | {s.judge_nats:.3f} | {s.distinct_2:.3f} |", flush=True
                )
        agent, control = found["agent"][0], found["control"][0]
        gains["reward"].append(agent.reward - control.reward)
        gains["judge's nats at temperature 1"].append(agent.judge_nats - control.judge_nats)
        gains["judge's nats at equal distinct-2"].append(
            agent.judge_nats - at_equal_diversity(found["control"], agent.distinct_2)
        )
    print("\nagent less control, mean over the seeds and 95 % interval:")
    for name, differences in gains.items():
        print(f"  {name:<36}{interval(differences)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
