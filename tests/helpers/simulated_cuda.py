"""Tensors that say they are on cuda:0 while their numbers lie on the CPU, to find on any machine what only a GPU would show.

    with SimulatedCuda() as cuda:
        trainer = launch.build(...)             # with device=cuda
        with cuda.recording() as waits: ...     # what makes the host wait for the device, with the project's line

An operation on tensors of both devices raises `MixedDevicesError`, as a GPU does; random numbers for the device from a generator
made for the CPU too. A wait is a value read on the host, a copy between the two, and an operation whose result's size follows
from values (nonzero, a boolean index, unique).

Not seen: kernels that CUDA lacks, memory, speed, branches that libraries take on a GPU alone, torch.compile, CUDA graphs.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import torch
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from dqnlm.utils import cuda_graphs
from tests.helpers.device_runs import Waits, package_line

CUDA, CPU, META = torch.device("cuda:0"), torch.device("cpu"), torch.device("meta")
aten = torch.ops.aten
READS_VALUES = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class MixedDevicesError(RuntimeError):
    """Tensors of the host and of the device in one operation, which a GPU refuses."""


class OnCuda(torch.Tensor):
    """A tensor on the device; `numbers` holds its values on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> Self:
        # The storage is a meta tensor's: autograd then asks for no stream of a GPU that is not there.
        shape = torch.empty_strided(numbers.size(), numbers.stride(), dtype=numbers.dtype, device="meta")
        made = torch.Tensor._make_subclass(  # type: ignore[attr-defined]
            cls, shape, numbers.requires_grad, dispatch_device=True, device_for_backend_keys=CUDA
        )
        made.numbers = numbers.detach() if numbers.requires_grad else numbers
        return made  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> OnCuda:
        if id(self) not in memo:
            copied = OnCuda(self.numbers.clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                copied._is_param = True
            memo[id(self)] = copied
        return memo[id(self)]  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        _active().note("tolist")
        return self.numbers.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a tensor on a CUDA device has no numpy(); copy it to the CPU first")

    def __reduce_ex__(self, protocol: Any) -> Any:  # saved as its numbers, which is what loading to the CPU gives
        return self.numbers.detach().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _active().run(function, args, kwargs or {})


class SimulatedCuda(TorchDispatchMode):
    """The device, for as long as the context lasts."""

    def __init__(self) -> None:
        super().__init__()
        self._waits: Waits | None = None
        self._generators: dict[int, tuple[torch.Generator, str]] = {}  # address -> itself, so that it stays alive; its device
        self._patches = contextlib.ExitStack()

    def __enter__(self) -> Self:
        torch._C._ensureCUDADeviceGuardSet()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        _ACTIVE.append(self)
        originals = {"tensor": torch.tensor, "Generator": torch.Generator, "quantile": torch.Tensor.quantile}

        def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
            if device is None or torch.device(device).type != "cuda":
                return originals["tensor"](data, device=device, **kwargs)  # type: ignore[no-any-return]
            self.note("a copy to the device")
            return OnCuda(originals["tensor"](data, **kwargs))

        def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
            if not isinstance(data, torch.Tensor):
                return tensor(data, dtype=dtype, device=device)
            return data if dtype is None and device is None else data.to(device=device, dtype=dtype)

        generators = self._generators

        class Generator:
            """Makes one of the CPU's numbers; it is known by its address, as operations are given another wrapper of it."""

            def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
                made: torch.Generator = originals["Generator"]()
                generators[made._cdata] = (made, torch.device(device).type)
                return made

        def quantile(self: torch.Tensor, q: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            if not isinstance(self, OnCuda):
                return originals["quantile"](self, q, *args, **kwargs)  # type: ignore[no-any-return]
            return OnCuda(originals["quantile"](self.numbers, getattr(q, "numbers", q), *args, **kwargs))

        for target, name, value in (
            (torch, "tensor", tensor), (torch, "as_tensor", as_tensor), (torch, "Generator", Generator),
            (torch.Tensor, "quantile", quantile), (torch.cuda, "_lazy_init", lambda: None),
            (torch.cuda, "is_available", lambda: True), (torch.cuda, "device_count", lambda: 1),
            (torch.cuda, "synchronize", lambda *a: None), (torch.cuda, "empty_cache", lambda: None),
            (torch.cuda, "mem_get_info", lambda *a: (80 << 30, 80 << 30)), (torch.cuda, "get_rng_state_all", list),
            (torch.cuda, "set_rng_state_all", lambda s: None),
            (torch.cuda, "current_device", lambda: 0), (torch.cuda, "get_device_name", lambda *a: "simulated"),
            (torch.cuda, "get_device_properties", lambda *a: SimpleNamespace(total_memory=80 << 30, name="simulated")),
            (torch.cuda, "is_bf16_supported", lambda *a: True), (torch.cuda, "get_rng_state", lambda *a: torch.get_rng_state()),
            (torch.Tensor, "pin_memory", lambda self: self),
            (cuda_graphs, "can_record", lambda device: False), (clip_grad, "_device_has_foreach_support", lambda device: True),
        ):  # fmt: skip
            self._patches.enter_context(mock.patch.object(target, name, value))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        _ACTIVE.pop()

    @contextlib.contextmanager
    def recording(self) -> Iterator[Waits]:
        """Collects the waits, "what at file:line code" -> how often."""
        self._waits = Counter()
        try:
            yield self._waits
        finally:
            self._waits = None

    def note(self, what: str) -> None:
        if self._waits is not None:
            self._waits[f"{what} at {package_line()}"] += 1

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(function, args, kwargs or {})

    def run(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """One operation on the numbers, after the checks of a device."""
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = any(isinstance(leaf, OnCuda) for leaf in leaves)
        named = kwargs.get("device")
        wanted = None if named is None else "cuda" if torch.device(named).type == "meta" else torch.device(named).type
        if function is torch.ops.prim.device.default and on_device:
            return META  # what the library's own code is told, as it would look for a driver of CUDA
        if function is aten._fused_sdp_choice.default:
            return 0  # attention in plain operations, which are dispatched one by one
        if on_device:
            self._check(function, args, leaves)
        generator = kwargs.get("generator")
        made_for = "cuda" if generator is None else self._generators.get(generator._cdata, (None, "cpu"))[1]
        if made_for != "cuda" and (on_device or wanted == "cuda"):
            raise MixedDevicesError(f"{function}: a generator of the CPU for numbers on the device, at {package_line()}")
        leaves_device = function is aten._to_copy.default and on_device and wanted == "cpu"
        if leaves_device or (function is aten._to_copy.default and wanted == "cuda" and not on_device):
            self.note("a copy from the device" if leaves_device else "a copy to the device")
        plain_args, plain_kwargs = tree_map(lambda x: x.numbers if isinstance(x, OnCuda) else x, (args, kwargs))
        if wanted == "cuda":
            plain_kwargs["device"] = CPU
        result = function(*plain_args, **plain_kwargs)
        if function is aten.copy_.default:
            return args[0]
        if leaves_device or not (on_device or wanted == "cuda"):
            return result
        result = tree_map(lambda x: OnCuda(x) if isinstance(x, torch.Tensor) and not isinstance(x, OnCuda) else x, result)
        if not on_device:
            return result
        try:
            return return_and_correct_aliasing(function, args, kwargs, result)
        except (RuntimeError, AssertionError, NotImplementedError):  # no alias information: the result stands for itself
            return result

    def _check(self, function: Any, args: Any, leaves: list[torch.Tensor]) -> None:
        """Raises MixedDevicesError; notes what waits."""
        if function is aten.copy_.default:
            there = [isinstance(x, OnCuda) for x in args[:2]]
            if there[0] != there[1]:
                self.note("a copy to the device" if there[0] else "a copy from the device")
        elif function not in COPIES and any(leaf.dim() for leaf in leaves if not isinstance(leaf, OnCuda)):
            raise MixedDevicesError(f"{function}: tensors of the host and of the device, at {package_line()}")
        boolean = function in INDEXES and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if function in READS_VALUES or boolean:
            self.note("a boolean index" if boolean else str(function))


_ACTIVE: list[SimulatedCuda] = []


def _active() -> SimulatedCuda:
    return _ACTIVE[-1]
