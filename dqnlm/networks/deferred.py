"""Outputs over a large vocabulary, computed where a loss reads them: at one action each, at decisions alone, or in full.

A pretrained model has tens of thousands of actions, and temporal differences read one of them at each time. Outputs in full,
(B, S, A, N), cost as much as the trunk itself; one row of the output layer a decision costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dqnlm.networks.base import QNetwork
from dqnlm.utils.output_names import first_q

MANY_ACTIONS = 4096  # from here on outputs are deferred; below, one product for all actions is faster than picking rows
CHUNK = 2**23  # raw numbers computed at once, 32 MiB in float32

# (raw_XAN, action_X, legal actions broadcastable to XA, or None) -> K numbers each, (X, K)
Reduce = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class DeferredOutputs(Mapping[str, Tensor]):
    """Raw outputs by name, as `QNetwork.forward` returns them, each computed when it is read.

    Args:
        network: whose projections are used.
        h_BSD: its features.
        bfloat16: whether projections run under autocast.
        projections: by the names that they are read by; None: the network's own.
    """

    def __init__(
        self, network: QNetwork, h_BSD: Tensor, bfloat16: bool, projections: Mapping[str, nn.Module] | None = None
    ) -> None:
        self.network, self.h_BSD, self.bfloat16 = network, h_BSD, bfloat16
        own: Mapping[str, nn.Module] = network.projections  # type: ignore[assignment]
        self.projections = own if projections is None else projections
        self._full: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        """In full, (B, S, A, N); kept, but where it was computed without the gradient that another reader may need."""
        if name in self._full:
            return self._full[name]
        raw_BSAN = self._project(name, self.h_BSD)
        if torch.is_grad_enabled() or not self.h_BSD.requires_grad:
            self._full[name] = raw_BSAN
        return raw_BSAN

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.projections

    def __iter__(self) -> Iterator[str]:
        return iter(self.projections)

    def __len__(self) -> int:
        return len(self.projections)

    def detached(self) -> DeferredOutputs:
        """The same without gradient."""
        return DeferredOutputs(self.network, self.h_BSD.detach(), self.bfloat16, self.projections)

    def renamed(self, names: Mapping[str, str]) -> DeferredOutputs:
        """The same, read by other names: own name -> new name."""
        found = {names.get(name, name): part for name, part in self.projections.items()}
        return DeferredOutputs(self.network, self.h_BSD, self.bfloat16, found)

    def at_actions(self, name: str, action_BT: Tensor) -> Tensor:
        """raw_BTN of one action each at the first T times."""
        h_BTD = self.h_BSD[:, : action_BT.shape[1]]
        pick = getattr(self.projections[name], "at_actions", None)
        with self._autocast():
            if pick is not None:
                raw_BTN: Tensor = pick(h_BTD, action_BT)
                return raw_BTN
        raw_BTAN = self[name][:, : action_BT.shape[1]]
        index_BT1N = action_BT[..., None, None].expand(*action_BT.shape, 1, raw_BTAN.shape[-1])
        return raw_BTAN.gather(2, index_BT1N).squeeze(2)

    def at_decisions(
        self, name: str, action_BT: Tensor, mask_BT: Tensor, legal: Tensor | None, reduce: Reduce
    ) -> Tensor:
        """`reduce` of the outputs at the times where the mask is above 0, chunk by chunk: (B, T, K), 0 elsewhere.

        Where there are several chunks, each is computed again in the backward pass, so that one at a time is in memory.
        """
        place_XT = (mask_BT > 0).nonzero(as_tuple=True)
        h_XD, action_X = self.h_BSD[:, : action_BT.shape[1]][place_XT], action_BT[place_XT]
        legal_XA = None if legal is None else _at(legal, place_XT, action_BT.shape)
        size = self._chunk(name)
        several = len(h_XD) > size and torch.is_grad_enabled()

        def part(begin: int) -> Tensor:
            mask = legal_XA if legal_XA is None or legal_XA.dim() < 2 else legal_XA[begin : begin + size]
            inputs = (h_XD[begin : begin + size], action_X[begin : begin + size], mask)

            def work(h_CD: Tensor, action_C: Tensor, mask_CA: Tensor | None) -> Tensor:
                return reduce(self._project(name, h_CD), action_C, mask_CA)

            return checkpoint(work, *inputs, use_reentrant=False) if several else work(*inputs)  # type: ignore[no-any-return]

        found_XK = torch.cat([part(begin) for begin in range(0, max(len(h_XD), 1), size)])
        return found_XK.new_zeros(*action_BT.shape, found_XK.shape[-1]).index_put(place_XT, found_XK)

    def _project(self, name: str, h: Tensor) -> Tensor:
        with self._autocast():
            raw: Tensor = self.projections[name](h)
            return raw

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.h_BSD.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _chunk(self, name: str) -> int:
        projection = self.projections[name]
        numbers = getattr(projection, "num_actions", MANY_ACTIONS) * getattr(projection, "num_parameters", 1)
        return max(CHUNK // int(numbers), 1)


def _at(legal: Tensor, place_XT: tuple[Tensor, ...], shape: torch.Size) -> Tensor:
    """The mask of legal actions at some places: XA, or A where it is the same everywhere."""
    if legal.dim() < 3 or legal.shape[:2] == (1, 1):
        return legal.reshape(-1)
    return legal.expand(*shape, legal.shape[-1])[place_XT]


def num_actions(network: QNetwork) -> int:
    """A of the network's q; 0 where it does not say."""
    projection = network.projections[first_q(network.projections)]
    return int(getattr(projection, "num_actions", 0))
