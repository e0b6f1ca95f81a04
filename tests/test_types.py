"""Batches cut to their decisions: what objectives and forward passes read must belong to the same times and rows."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from dqnlm.types import Batch, Decisions
from tests.helpers.batches import make_batch, random_batch


def remainder(observation_BS: Tensor) -> Tensor:
    """legal_BSA of three actions: the one with the observation's remainder by 3."""
    return torch.nn.functional.one_hot(observation_BS % 3, 3).bool()


def by_hand() -> Batch:
    """Two rows of 4 steps; the first decisions are at 1 and 2, and the second row has one step of padding."""
    return make_batch(
        torch.arange(8).view(2, 4), torch.arange(8.0).view(2, 4), 0.5, [[0.0, 1, 0, 1], [0, 0, 1, 0]],
        torch.arange(10).view(2, 5), length_B=[4, 3], first=1,
    )  # fmt: skip


def test_fields_and_legal_actions_begin_at_the_first_decision() -> None:
    """Bug: a field, or the legal actions, of another time than the outputs; observations cut, so that their context is lost."""
    cut = by_hand().from_first_decision(remainder, multi_turn=True)
    assert cut.action_BT.tolist() == [[1, 2, 3], [5, 6, 7]] and cut.reward_BT.tolist() == cut.action_BT.tolist()
    assert cut.mask_BT.tolist() == cut.learn_BT.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert cut.carry_BT is not None and cut.carry_BT.tolist() == [[False, True, False], [True, False, False]]
    assert cut.observation_BS.shape == (2, 5)
    assert cut.legal_BSA is not None and cut.legal_BSA.shape == (2, 4, 3)
    assert cut.legal_BTA is not None and cut.legal_BTA.long().argmax(-1).tolist() == [[1, 2, 0], [0, 1, 2]]
    assert cut.at_decisions(torch.zeros(2, 4, 3)).shape == (2, 3, 3)
    assert cut.from_first(torch.arange(8).view(2, 4)).tolist() == [[1, 2, 3], [5, 6, 7]]
    assert by_hand().from_first_decision().carry_BT is None, "nothing is carried where no step lies between decisions"


def test_a_mask_for_all_times_is_not_cut() -> None:
    """Bug: legal actions that are the same everywhere are cut as if their axis were time, or rows."""
    legal_A = torch.tensor([True, False, True])
    for mask in (legal_A, legal_A.view(1, 1, 3)):
        cut = by_hand().from_first_decision(lambda observation_BS, mask=mask: mask)
        for part in (cut, *cut.split(1)):
            assert part.legal_BTA is mask


def test_the_prompt_ends_with_the_first_decision() -> None:
    """Bug: the answer counted to the prompt, or the observation that the first decision reads left out."""
    assert by_hand().from_first_decision().prompt_BS.tolist() == [[0, 1, -1, -1, -1], [5, 6, 7, -1, -1]]


@pytest.mark.parametrize("rows", [None, 2, 4, 6, 9])
def test_parts_are_the_batch_in_order(rows: int | None) -> None:
    """Bug: a row lost or doubled at a border, or a field that is not cut with the others."""
    whole = random_batch(rows=6, first=2).from_first_decision(remainder, multi_turn=True)
    parts = list(whole.split(rows))
    assert [part.rows for part in parts] == {None: [6], 2: [2, 2, 2], 4: [4, 2], 6: [6], 9: [6]}[rows]
    for field in fields(Decisions):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], Tensor):
            assert torch.equal(torch.cat(values), getattr(whole, field.name)), field.name
        else:
            assert set(values) == {getattr(whole, field.name)}


def test_copies_share_observations_and_get_their_outputs_back() -> None:
    """Bug: outputs of one text given to the rows of another."""
    batch = random_batch(rows=6, copies=3).from_first_decision()
    unique_BS = batch.unique_observations()
    assert len(unique_BS) == 2
    assert torch.equal(batch.expand({"q": unique_BS})["q"], batch.observation_BS)
