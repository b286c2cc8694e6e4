"""Assertions that name the component, and what layers are tried on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, Site
from lavie.spec import Spec, type_of

T = TypeVar("T")
BATCH, NUM_FRAMES, SIDE, NUM_TOKENS = 2, 4, 8, 5
TOLERANCE = 1e-5


def expect(condition: bool, spec: Spec, promise: str) -> None:
    """Fail with the component's name unless the condition holds."""
    if not condition:
        raise AssertionError(f"{spec.kind} {type_of(type(spec))!r} {promise}")


@contextmanager
def seeded() -> Iterator[None]:
    """Draw from a fixed seed, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build_on_meta(spec: Spec, build: Callable[[], T]) -> T:
    """Build without memory, and check that it really took none."""
    with torch.device("meta"):
        built = build()
    if isinstance(built, nn.Module):
        real = [name for name, parameter in built.named_parameters() if parameter.device.type != "meta"]
        expect(not real, spec, f"does not build on the meta device: {', '.join(real)} takes memory there")
    return built


def draw_zeros_anew(module: nn.Module) -> None:
    """Give random values to every parameter that starts as zero, so that nothing is silent any more."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)


def conditioning(site: Site, batch: int = BATCH) -> Conditioning:
    """Return text and time for a batch of videos."""
    context = torch.randn(batch, NUM_TOKENS, max(site.context_dim, 1))
    return Conditioning(context, time_embed=torch.randn(batch, 1, max(site.time_dim, 1)))


def one_of(cond: Conditioning, index: int) -> Conditioning:
    """Return the conditioning of one sample of a batch."""
    embed = cond.time_embed
    inputs = {name: tensor[index : index + 1] for name, tensor in cond.inputs.items()}
    kept = slice(index, index + 1)
    return Conditioning(cond.context[kept], None if embed is None else embed[kept], cond.num_images, inputs)


def check_run(
    spec: Spec, module: nn.Module, run: Callable[[Tensor, Conditioning], Tensor], x: Tensor, site: Site
) -> None:
    """Check what every trainable part promises, once its zero parameters are drawn anew.

    Samples of a batch do not see each other, every parameter gets a gradient, eval is deterministic, the input is not
    written to, any memory order is accepted, and bfloat16 stays bfloat16.
    """
    draw_zeros_anew(module)
    cond = conditioning(site, len(x))
    before = x.clone()
    out = run(x, cond)
    expect(bool(torch.isfinite(out).all()), spec, "returns numbers that are not finite")
    expect(torch.equal(x, before), spec, "writes to its input")
    torch.autograd.backward(out.square().mean())
    idle = [name for name, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    expect(not idle, spec, f"has parameters without a gradient: {', '.join(idle)}")
    module.eval()
    with torch.no_grad():
        out = run(x, cond)
        expect(torch.equal(out, run(x, cond)), spec, "is not deterministic in eval")
        alone = torch.cat([run(x[i : i + 1], one_of(cond, i)) for i in range(len(x))])
        expect(_near(out, alone), spec, f"mixes samples of a batch: {_gap(out, alone)}, allowed {TOLERANCE}")
        if x.ndim == 5:
            other = run(x.contiguous(memory_format=torch.channels_last_3d), cond)
            expect(_near(out, other), spec, f"depends on the memory order of its input: {_gap(out, other)}")
        _check_bfloat16(spec, module, run, x, cond)


def _check_bfloat16(
    spec: Spec, module: nn.Module, run: Callable[[Tensor, Conditioning], Tensor], x: Tensor, cond: Conditioning
) -> None:
    module.to(torch.bfloat16)
    embed = None if cond.time_embed is None else cond.time_embed.bfloat16()
    out = run(x.bfloat16(), Conditioning(cond.context.bfloat16(), embed, cond.num_images, cond.inputs))
    expect(out.dtype == torch.bfloat16, spec, f"returns {out.dtype} for bfloat16 input")
    expect(bool(torch.isfinite(out).all()), spec, "returns numbers that are not finite in bfloat16")
    module.float()


def _near(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= TOLERANCE * max(1.0, float(one.abs().max())))


def _gap(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f"shapes {tuple(one.shape)} and {tuple(other.shape)}"
    return f"results differ by {float((one - other).abs().max()):.1e}"
