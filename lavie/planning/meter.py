"""Runs tensor code on tensors without data, and takes note of the memory and the work that the real run will need.

Nothing is known here of any layer: every operator that runs passes by, and storages are watched until they are freed.
"""

import functools
import math
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lavie.planning.kernels import Kernels

aten = torch.ops.aten
META = torch.device("meta")
SMALL = 2**20
"""Bytes. Tables on the CPU up to this size are computed as they are: code may depend on what is in them."""

Kind = Literal["convolution", "product", "attention", "moved"]
"""What limits an operator: floating-point operations of three kinds, or bytes that are read and written."""


@dataclass
class Usage:
    """What a piece of code needed."""

    before: int = 0
    """Bytes on the device when it began."""
    peak: int = 0
    """Most bytes there at a time, those before included."""
    work: Counter[Kind] = field(default_factory=Counter)
    """Floating-point operations of each kind, and bytes moved by all other operators."""


@final
class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the context, operators run on the meta device, and their outputs are counted while they are alive.

    What is alive already counts if it is given to `hold`.

    Raises:
        NotImplementedError: from within, if code depends on numbers that only a real run has.
    """

    def __init__(self, kernels: Kernels) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = kernels
        self.live = 0
        self._usage = Usage()
        self._alive: dict[int, tuple[weakref.ref[torch.UntypedStorage], bool]] = {}
        # By the id of the storage: watched until it is freed, and whether it lies outside the device.

    def hold(self, num_bytes: int, spare: int = 0) -> None:
        """Count bytes that are taken until they are given back as negative ones, and `spare` for a moment."""
        self.live += num_bytes
        self._see(spare)

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are there as none of the device's bytes, though they lie there: `hold` counts them."""
        for tensor in tensors:
            self._watch(tensor.untyped_storage(), 0, is_host=False)

    @contextmanager
    def section(self) -> Iterator[Usage]:
        """Take note of what the code within the context needs, apart from what is around it."""
        outer, self._usage = self._usage, Usage(self.live, self.live)
        try:
            yield self._usage
        finally:
            inner, self._usage = self._usage, outer
            outer.peak = max(outer.peak, inner.peak)
            outer.work.update(inner.work)

    def add(self, usage: Usage) -> None:
        """Count what ran before as if it ran now."""
        self._see(usage.peak - usage.before)
        self._usage.work.update(usage.work)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operator without data; what is made of others is taken apart first."""
        kwargs = dict(kwargs or {})
        packet = func._overloadpacket
        if func is aten.scaled_dot_product_attention.default:
            return self._attention(*args, **kwargs)
        if func is aten.equal.default and args[0].is_meta:
            return False  # tensors that are one and the same are not compared
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            raise NotImplementedError("a number is read from a tensor")
        if packet not in flop_registry and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        is_host = self._is_host(args, kwargs)
        func, args, kwargs = _without_data(func, args, kwargs)
        out = func(*args, **kwargs)
        if packet is aten.convolution:
            out = self.kernels.laid_out(out, *args[:2])
        moved = self._note(out, is_host)
        if packet in flop_registry:
            kind: Kind = "convolution" if packet is aten.convolution else "product"
            self._usage.work[kind] += flop_registry[packet](*args, **kwargs, out_val=out)
        elif moved:
            self._usage.work["moved"] += moved + sum(tensor.nbytes for tensor in _tensors((args, kwargs)))
        self._see(0 if is_host else self.kernels.workspace(packet, args))
        return out

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Run the kernel that torch would choose for real tensors of these shapes."""
        if not self.kernels.is_fused(query, key, value, attn_mask, *args, **kwargs):
            with self:
                return aten._scaled_dot_product_attention_math.default.decompose(
                    query, key, value, attn_mask, *args, **kwargs
                )[0]
        # All fused kernels leave the same two things behind; this one's are known for any shape.
        out = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=attn_mask)
        self._note(out, is_host=False)
        *_, length, dim = query.shape
        self._usage.work["attention"] += 4 * query.shape[0] * query.shape[1] * length * key.shape[2] * dim
        self._see(0)
        return out[0]

    def _is_host(self, args: Any, kwargs: Mapping[str, Any]) -> bool:
        """Tell whether the outcome lies outside the device, as noise does until it is copied there."""
        if self.kernels.device.type == "cpu":
            return False
        if (device := kwargs.get("device")) is not None:
            return torch.device(device).type == "cpu"
        tensors = list(_tensors((args, kwargs)))
        return all(not tensor.is_meta or self._lies_outside(tensor) for tensor in tensors)

    def _lies_outside(self, tensor: Tensor) -> bool:
        known = self._alive.get(id(tensor.untyped_storage()))
        return known is not None and known[1]

    def _note(self, out: Any, is_host: bool) -> int:
        """Watch whatever is new among tensors, and return how many bytes that is."""
        new = 0
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if tensor.is_meta and id(storage) not in self._alive:
                new += storage.nbytes()
                self._watch(storage, storage.nbytes(), is_host)
        return new

    def _watch(self, storage: torch.UntypedStorage, num_bytes: int, is_host: bool) -> None:
        key, counted = id(storage), 0 if is_host else num_bytes

        def free(_: weakref.ref[torch.UntypedStorage]) -> None:
            self.live -= counted
            del self._alive[key]

        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, free), is_host
            self.live += counted

    def _see(self, spare: int) -> None:
        self._usage.peak = max(self._usage.peak, self.live + spare)


@functools.cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _without_data(func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Move an operator to the meta device, unless all it touches is a small table."""
    tensors = list(_tensors((args, kwargs)))
    if any(tensor.is_meta for tensor in tensors):
        if not all(tensor.is_meta for tensor in tensors):
            args, kwargs = _on_meta(args), {name: _on_meta(value) for name, value in kwargs.items()}
        if kwargs.get("device") is not None:
            kwargs["device"] = META
    elif tensors or not _is_large(args):
        return func, args, kwargs
    else:
        kwargs["device"] = META
    if "generator" in kwargs:  # there is none for a device that draws no numbers
        del kwargs["generator"]
        overload = func._overloadname.removesuffix("generator").removesuffix("_")
        func = getattr(func._overloadpacket, overload or "default")
    return func, args, kwargs


def _is_large(args: Any) -> bool:
    """Tell whether an operator without tensors makes a large one; its first argument is the size."""
    size = args[0] if args and isinstance(args[0], list | tuple) else ()
    return math.prod(size) * 8 > SMALL


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors of arguments; torch's own trees know more kinds of nodes and take half of a dry run's time."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _tensors(each)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(META)
    return type(value)(map(_on_meta, value)) if type(value) in (list, tuple) else value
