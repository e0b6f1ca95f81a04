"""Draws in proportion to the masses of many places, in a time that hardly depends on how many there are.

    leaf_N                       masses, N places
    level 0: ceil(N / W) nodes   a node is the sum of W = 256 children
    level 1: ceil(N / W^2) ...   up to one root, the sum of all

A draw descends the levels for a whole batch at once: a cumulative sum and a binary search over the W children of each node,
so 3 levels hold 16 million places and 4 hold 4 billion. A changed leaf recomputes the nodes above it from their children,
nothing is added to or taken from an old sum: sums do not drift, and a tree built anew is the same. Sums are float64, exact for
counts up to 2^53 in all. Sum trees for replay: Schaul et al. 2016, appendix B.2.1, with two children.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

WIDTH = 256


def leaves(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros for `count` places and as many more as make whole nodes; the masses behind `count` must stay 0."""
    return torch.zeros(-(-count // WIDTH) * WIDTH, dtype=dtype, device=device)


class SumTree:
    """Sums over blocks of a tensor of masses, which stays where it is and is read, never written.

    Args:
        leaf_N: masses, 0 or more, of any type of numbers, as `leaves` makes them; a change in it must be told by `refresh`.
        count: places that may be drawn; the masses behind them are 0.
    """

    def __init__(self, leaf_N: Tensor, count: int) -> None:
        self.leaf_N, self.count = leaf_N, count
        self._blocks = [leaf_N.view(-1, WIDTH)]  # from the leaves up, each a block of children for each node above it
        while len(self._blocks[-1]) > 1:
            self._blocks.append(leaves(len(self._blocks[-1]), torch.float64, leaf_N.device).view(-1, WIDTH))
        self.rebuild()

    def total(self) -> Tensor:
        """The sum of all masses, a float64 scalar on the device."""
        return self._blocks[-1].sum(dtype=torch.float64)

    def rebuild(self) -> None:
        """Recomputes all nodes, in a time proportional to N."""
        for below, above in pairwise(self._blocks):
            above.view(-1)[: len(below)] = below.sum(1, dtype=torch.float64)

    def refresh(self, first_B: Tensor, count: int = 1) -> None:
        """Recomputes the nodes above the leaves first..first + count - 1 of each entry.

        Args:
            first_B: int64, each with its `count` leaves within the tensor.
            count: leaves of each entry, at least 1.
        """
        last_B = first_B + (count - 1)
        for below, above in pairwise(self._blocks):
            first_B, last_B = first_B // WIDTH, last_B // WIDTH
            count = (count + WIDTH - 2) // WIDTH + 1  # nodes that so many neighbours can touch
            node_M = first_B if count == 1 else _neighbours(first_B, last_B, count)
            above.view(-1)[node_M] = below[node_M].sum(1, dtype=torch.float64)

    def find(self, place_B: Tensor) -> tuple[Tensor, Tensor]:
        """The leaf i with leaf_0 + ... + leaf_{i-1} <= place < leaf_0 + ... + leaf_i, never one of mass 0.

        Args:
            place_B: float64 in [0, total); a place at the total or above it counts as just below it.

        Returns:
            index_B: int64; the last place where all masses are 0.
            rest_B: float64, how far the place lies beyond the leaf's beginning.
        """
        node_B, rest_B1 = torch.zeros_like(place_B, dtype=torch.int64), place_B[:, None]
        for below in reversed(self._blocks):
            # Beyond the last block only where all masses are 0.
            end_BW = below[node_B.clamp(max=len(below) - 1)].cumsum(1, dtype=torch.float64)
            # A node's own sum may exceed its last end by rounding, and beyond that end lies no mass.
            rest_B1 = torch.minimum(rest_B1, torch.nextafter(end_BW[:, -1:], end_BW.new_zeros(())))
            child_B1 = torch.searchsorted(end_BW, rest_B1, right=True).clamp_(max=WIDTH - 1)
            begin_B1 = end_BW.gather(1, (child_B1 - 1).clamp_(min=0)).masked_fill_(child_B1 == 0, 0.0)
            rest_B1, node_B = rest_B1 - begin_B1, node_B * WIDTH + child_B1[:, 0]
        return node_B.clamp(max=self.count - 1), rest_B1[:, 0]


def _neighbours(first_B: Tensor, last_B: Tensor, count: int) -> Tensor:
    """first, first + 1, ... of each entry up to its last, `count` each (the last repeated), in one row."""
    place_K = torch.arange(count, device=first_B.device)
    return torch.minimum(first_B[:, None] + place_K, last_B[:, None]).flatten()
