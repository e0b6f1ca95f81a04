"""Answers to prompts, with a reward for the finished answer: translation, replies, any text with references.

    time          0 ... P-2      P-1      P        ...  P+L-2        P = tokens of this prompt, its line break included
    observation   the prompt     its last answer's first ...         L = decisions of this answer, its line break included
    step          no decision    judged   judged   ...  judged

Prompts and answers have lengths of their own. An episode ends with the line break, or after `horizon` decisions; it is
judged when it is over. All E answers of a rollout are written at once.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from dqnlm.envs.base import CompletesPrompts
from dqnlm.errors import UserError
from dqnlm.rewards.base import Episodes, Reward
from dqnlm.types import DECISION, TERMINATED, Bounds, Rows, TaskSpec

_DRAWN = 16  # times as many pairs are drawn as are taken


class RunsOfIds(Protocol):
    """Token ids of many texts, end to end; text k stands in ids[start_K[k] : start_K[k + 1]]."""

    @property
    def ids(self) -> Tensor: ...

    @property
    def start_K(self) -> Tensor: ...

    def longest(self) -> int: ...


class Prompted(CompletesPrompts):
    """Answers to prompts.

    Args:
        prompts: token ids of the prompts, with `ids`, `start_K` and `longest()`.
        references: of the answers, as many, without the stop token.
        longest_prompt: tokens of the longest prompt of any part of the data, those of the evaluations included.
        reward: of finished answers.
        num_actions: A.
        legal_mask_A: bool, which tokens may be chosen; None for all.
        eos_id: the token that ends an answer.
        device: where everything lives.
        seed: of the generator that draws the prompts.
        evaluating: copy i always answers prompt i (modulo their number).
        num_envs: E, answers written at once.
        samples_per_prompt: consecutive environments that answer the same prompt, each for itself.
        horizon: most decisions in an answer, its line break included.

    Raises:
        UserError: a number below 1, copies that do not divide E, or a reward that is not sequence-level.
    """

    task = "answers"

    def __init__(
        self,
        prompts: RunsOfIds,
        references: RunsOfIds,
        longest_prompt: int,
        reward: Reward,
        num_actions: int,
        legal_mask_A: Tensor | None,
        eos_id: int,
        device: torch.device,
        seed: int,
        evaluating: bool,
        *,
        num_envs: int,
        samples_per_prompt: int,
        horizon: int,
    ) -> None:
        for name, value in {
            "num_envs": num_envs,
            "samples_per_prompt": samples_per_prompt,
            "horizon": horizon,
        }.items():
            if value < 1:
                raise UserError(f"env.{name} is {value}; it must be 1 or more")
        if num_envs % samples_per_prompt and not evaluating:
            raise UserError(
                f"env.num_envs={num_envs} is no multiple of env.samples_per_prompt={samples_per_prompt}; set it to "
                f"{(num_envs // samples_per_prompt + 1) * samples_per_prompt}"
            )
        if not reward.sequence_level:
            raise UserError(
                "this reward compares token by token with a text of the same length, and answers have lengths of "
                "their own: use reward=chrf, bleu, rouge_l, edit_distance, language_model, function or a mixture of these"
            )
        self.device, self.num_envs, self.max_new_tokens = torch.device(device), num_envs, horizon
        self.reward, self.eos_id = reward, eos_id
        self._prompts, self._references = _moved(prompts, self.device), _moved(references, self.device)
        self._longest, self._longest_reference = longest_prompt, references.longest()
        self.row_transitions = self._longest + horizon - 1
        self.spec = TaskSpec(
            num_actions=num_actions, num_tokens=num_actions, row_transitions=self.row_transitions,
            episode_steps=self.row_transitions, first_decision=int((prompts.start_K[1:] - prompts.start_K[:-1]).min()) - 1,
            stores_actions=False, eos_id=eos_id, variable_length=True, deterministic=True,
        )  # fmt: skip
        sides = (self._prompts[1], self._references[1])
        prompt_K, reference_K = (start_K[1:] - start_K[:-1] for start_K in sides)
        self._prompt_length_K, self._length_K = prompt_K, prompt_K + reference_K
        self._legal_mask_A = None if legal_mask_A is None else legal_mask_A.to(self.device)
        self._copies, self._count = 1 if evaluating else samples_per_prompt, len(prompts.start_K) - 1
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._fixed_E = torch.arange(num_envs, device=self.device) % self._count if evaluating else None
        self.pair_E = torch.zeros(num_envs, dtype=torch.int64, device=self.device)  # the pair that each copy answers
        self.prompts()  # the first episodes begin

    def prompts(self) -> tuple[Tensor, Tensor]:
        if self._fixed_E is not None:
            self.pair_E = self._fixed_E
        else:
            drawn = self._neighbours(self.num_envs // self._copies, self._prompt_length_K, self._generator)
            self.pair_E = drawn.repeat_interleave(self._copies)
        return _padded(self._prompts, self.pair_E, self._longest)

    def score_completions(self, action_EH: Tensor, length_E: Tensor) -> Rows:
        return self._rows(self.pair_E, action_EH, length_E, with_rewards=True)

    def demonstrate(self, count: int, generator: torch.Generator, with_rewards: bool) -> Rows:
        """Pairs of the data of similar length; answers longer than the horizon are cut."""
        pair_B = self._neighbours(count, self._length_K, generator)
        width = max(self.max_new_tokens, self._longest_reference + 1)
        completion_BH, length_B = _padded(self._references, pair_B, width)
        completion_BH = completion_BH.scatter(1, length_B[:, None], self.eos_id)[:, : self.max_new_tokens]
        return self._rows(pair_B, completion_BH, (length_B + 1).clamp(max=self.max_new_tokens), with_rewards)

    def _neighbours(self, count: int, length_K: Tensor, generator: torch.Generator) -> Tensor:
        """Indices of `count` random pairs of similar length, so that a batch of them has little padding.

        Of some times `count` random ones, put in order of their length, `count` neighbours: each pair as likely as any other.
        """
        pair_X = torch.randint(self._count, (count * _DRAWN,), generator=generator, device=self.device)
        block = torch.randint(_DRAWN, (1,), generator=generator, device=self.device)
        return pair_X[length_K[pair_X].argsort(stable=True)].view(_DRAWN, count)[block][0]

    def _rows(self, pair_B: Tensor, action_BH: Tensor, length_B: Tensor, with_rewards: bool) -> Rows:
        """Prompt and answer end to end, right-padded; the answer's padding must be behind its length."""
        prompt_BP, prompt_length_B = _padded(self._prompts, pair_B, self._longest)
        place_H = torch.arange(self.max_new_tokens, device=self.device)
        action_BH = action_BH.masked_fill(place_H >= length_B[:, None], 0)
        reward_BH = torch.zeros(action_BH.shape, device=self.device)
        if with_rewards:
            reference_BR, reference_length_B = _padded(self._references, pair_B, self._longest_reference)
            episodes = Episodes(
                prompt_BP, prompt_length_B, action_BH, length_B, reference_BR, reference_length_B, pair_B
            )
            reward_BH = self.reward.judge(episodes)
        decision_BH = place_H < length_B[:, None]
        flag_BH = decision_BH * DECISION + (place_H == length_B[:, None] - 1) * TERMINATED
        shape, begin_BH = (len(pair_B), self.row_transitions), prompt_length_B[:, None] - 1 + place_H
        observation_BS = torch.nn.functional.pad(prompt_BP, (0, self.max_new_tokens))
        observation_BS.scatter_(1, begin_BH + 1, action_BH)
        reward_BT = torch.zeros(shape, device=self.device).scatter(1, begin_BH, reward_BH)
        flag_BT = torch.zeros(shape, dtype=torch.uint8, device=self.device).scatter(
            1, begin_BH, flag_BH.to(torch.uint8)
        )
        return Rows(observation_BS, observation_BS[:, 1:], reward_BT, flag_BT, prompt_length_B - 1 + length_B)

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        return self._legal_mask_A

    def return_bounds(self, gamma: float) -> Bounds:
        return self.reward.return_bounds(gamma, self.max_new_tokens)

    @property
    def reward_bounds(self) -> Bounds:
        return self.reward.bounds

    def reward_parts(self) -> dict[str, Tensor]:
        return self.reward.parts()

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"].cpu())


def _moved(runs: RunsOfIds, device: torch.device) -> tuple[Tensor, Tensor]:
    return runs.ids.to(device), runs.start_K.to(device)


def _padded(runs: tuple[Tensor, Tensor], index_B: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """ids_BW of the runs, padded with 0, and their lengths."""
    ids, start_K = runs
    start_B, end_B = start_K[index_B], start_K[index_B + 1]
    place_BW = start_B[:, None] + torch.arange(width, device=ids.device)
    inside_BW = place_BW < end_B[:, None]
    return torch.where(inside_BW, ids[place_BW.clamp(max=len(ids) - 1)], 0), end_B - start_B
