"""Attention kernels: ways to compute the same numbers, chosen by name; a device is asked by a trial what it can do."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lavie.errors import Fault, SpecError
from lavie.faults import suggest

Kernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""`(query, key, value, bias) -> update`, shapes as those of `plain`."""
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""How far the numbers of a trial, which are about 1, may be from the plain ones."""
VARIABLE = "LAVIE_ATTENTION"
"""Environment variable that names the kernel where nothing else does."""
DEFAULT = "sdpa"


def plain(
    query: Float[Tensor, "n k q d"],
    key: Float[Tensor, "n k s d"],
    value: Float[Tensor, "n k s d"],
    bias: Float[Tensor, "1 #k q s"] | None,
) -> Float[Tensor, "n k q d"]:
    """Return softmax(q·kᵀ/√d + bias)·v as it is written (arXiv 1706.03762, eq. 1), in float32 or better.

    The reference: keeps all n·k·q·s weights in memory.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    logits = query.to(dtype) @ key.to(dtype).mT * query.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias
    return (logits.softmax(dim=-1) @ value.to(dtype)).to(query.dtype)


def fused(
    query: Float[Tensor, "n k q d"],
    key: Float[Tensor, "n k s d"],
    value: Float[Tensor, "n k s d"],
    bias: Float[Tensor, "1 #k q s"] | None,
) -> Float[Tensor, "n k q d"]:
    """Let torch choose among its kernels; they never hold all weights at once."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def xformers(
    query: Float[Tensor, "n k q d"],
    key: Float[Tensor, "n k s d"],
    value: Float[Tensor, "n k s d"],
    bias: Float[Tensor, "1 #k q s"] | None,
) -> Float[Tensor, "n k q d"]:
    """Let xformers choose among its kernels, which want heads after tokens, and biases in rows of 8 numbers."""
    from xformers.ops import memory_efficient_attention

    query, key, value = (rearrange(each, "n k l d -> n l k d") for each in (query, key, value))
    if bias is not None:
        num_keys = bias.shape[-1]
        rows = F.pad(bias.to(query.dtype), (0, -num_keys % 8))[..., :num_keys]
        bias = rows.expand(len(query), query.shape[2], -1, -1)
    update: Tensor = memory_efficient_attention(query, key, value, attn_bias=bias)
    return rearrange(update, "n l k d -> n k l d")


KERNELS: dict[str, Kernel] = {DEFAULT: fused, "math": plain, "xformers": xformers}
"""All there are, by the names that users choose by."""

_chosen: str | None = None
"""What `use_attention` has set: for the whole process, like torch's own settings, since layers run in other threads."""


def attention_in_use() -> str:
    """Return the name of the kernel in use."""
    return _chosen or os.environ.get(VARIABLE) or DEFAULT


def kernel_for(query: Tensor) -> Kernel:
    """Return the kernel in use; tensors without numbers go through torch's own kernels, which know their shapes.

    Raises:
        SpecError: if the environment names one that does not exist.
    """
    name = attention_in_use()
    if query.is_meta and name != "math":
        name = DEFAULT
    return KERNELS.get(name) or _kernel(name)


@contextmanager
def use_attention(name: str | None, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Compute all attention of this process with one kernel within the context; None changes nothing.

    Where nothing is chosen, LAVIE_ATTENTION counts, and torch's own kernels where that is not set either.

    Raises:
        SpecError: if there is no such kernel, or it does not work on this device in this dtype, with the reason.
    """
    global _chosen
    check_attention(name, device, dtype)
    before, _chosen = _chosen, name or _chosen
    try:
        yield
    finally:
        _chosen = before


def check_attention(name: str | None, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
    """Refuse a kernel, or the one in use, that does not exist or does not work here.

    Raises:
        SpecError: with what exists, or with the reason.
    """
    chosen = name or attention_in_use()
    _kernel(chosen)
    if reason := why_not(chosen, torch.device(device), dtype):
        works = ", ".join(each for each in KERNELS if not why_not(each, torch.device(device), dtype))
        kind = str(dtype).removeprefix("torch.")
        raise SpecError(
            [Fault(_origin(chosen), f"{chosen} does not work on {device} in {kind}: {reason}. Use {works}")]
        )


def _kernel(name: str) -> Kernel:
    if name not in KERNELS:
        message = f"unknown kernel {name!r:.80}.{suggest(name, KERNELS)} Known: {', '.join(KERNELS)}"
        raise SpecError([Fault(_origin(name), message)])
    return KERNELS[name]


def _origin(name: str) -> str:
    return VARIABLE if _chosen is None and os.environ.get(VARIABLE) == name else "attention"


@functools.cache
def why_not(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Return why a kernel does not work on a device in a dtype, or nothing if it does.

    What a package says of itself is not asked: xformers calls kernels available that refuse to run on a CPU.
    """
    kernel, tolerance = KERNELS[name], _TOLERANCE[dtype]
    for head_dim, is_biased in ((40, False), (40, True), (160, True)):
        try:
            trial = _trial(head_dim, is_biased, device, dtype)
            with torch.inference_mode():
                gap = float((kernel(*trial) - plain(*trial)).abs().max())
        except ImportError as error:
            return f"{error}; pip install 'lavie[{name}]'"
        except (RuntimeError, ValueError) as error:  # NotImplementedError is one of the former
            return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].rstrip(':. ')}"
        if not gap <= tolerance:
            bias = "with" if is_biased else "without"
            return f"{bias} a bias and with heads {head_dim} wide, its numbers differ from the plain ones by {gap:.1e}"
    return ""


def _trial(
    head_dim: int, is_biased: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return a small attention of odd lengths, always of the same numbers."""
    generator = torch.Generator("cpu").manual_seed(head_dim)
    shapes = [(2, 3, length, head_dim) for length in (5, 13, 13)] + [(1, 3, 5, 13)]
    tensors = [torch.randn(shape, generator=generator, device="cpu").to(device, dtype) for shape in shapes]
    return tensors[0], tensors[1], tensors[2], tensors[3] if is_biased else None
