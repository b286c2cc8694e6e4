"""What layers promise: temporal, spatial, resblock, position, bias, conditioner."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from lavie.blocks.base import (
    BiasSpec,
    Conditioner,
    ConditionerSpec,
    PositionSpec,
    ResBlock,
    ResBlockSpec,
    Site,
    SpatialLayer,
    SpatialSpec,
    TemporalLayer,
    TemporalSpec,
)
from lavie.spec import Spec
from lavie.testing.expect import BATCH, NUM_FRAMES, SIDE, build_on_meta, check_run, conditioning, expect, seeded

FRAME_COUNTS = (1, 4, 9)


def check_temporal(spec: TemporalSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Shape, dtype, exactly 0 when fresh; then as every layer."""
    if build_on_meta(spec, lambda: spec.build(site)) is None:
        return
    with seeded():
        layer = spec.build(site)
        expect(isinstance(layer, TemporalLayer), spec, f"builds {type(layer).__name__}, which is no TemporalLayer")
        assert isinstance(layer, TemporalLayer)
        for num_frames in FRAME_COUNTS:
            update = _same_shape(spec, layer, site, num_frames)
            expect(not update.any(), spec, f"is not silent when fresh: it adds up to {float(update.abs().max()):.1e}")
        check_run(spec, layer, layer, _video(site, NUM_FRAMES), site)


def check_spatial(spec: SpatialSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Shape and dtype, with images riding along too; then as every layer."""
    build_on_meta(spec, lambda: spec.build(site))
    with seeded():
        layer = spec.build(site)
        expect(isinstance(layer, SpatialLayer), spec, f"builds {type(layer).__name__}, which is no SpatialLayer")
        for num_frames in FRAME_COUNTS:
            _same_shape(spec, layer, site, num_frames)
        joint = replace(conditioning(site), context=torch.randn(BATCH, 3, 5, max(site.context_dim, 1)), num_images=2)
        x = _video(site, NUM_FRAMES)
        expect(layer(x, joint).shape == x.shape, spec, "does not keep the shape when images ride along")
        check_run(spec, layer, layer, x, site)


def check_resblock(spec: ResBlockSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Go from any width to the site's, for the same and for another width; then as every layer."""
    for in_channels in (site.channels, site.channels // 2):
        build_on_meta(spec, lambda width=in_channels: spec.build(site, width))  # type: ignore[misc]
        with seeded():
            block = spec.build(site, in_channels)
            expect(isinstance(block, ResBlock), spec, f"builds {type(block).__name__}, which is no ResBlock")
            for num_frames in FRAME_COUNTS:
                x = _video(replace(site, channels=in_channels), num_frames)
                out = block(x, conditioning(site))
                _expect_like(spec, out, torch.Size((BATCH, site.channels, *x.shape[2:])), x.dtype)
            check_run(spec, block, block, _video(replace(site, channels=in_channels), NUM_FRAMES), site)


def check_position(spec: PositionSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Keep the shape and dtype of queries and keys."""
    build_on_meta(spec, lambda: spec.build(site))
    with seeded():
        position = spec.build(site)
        for num_frames in FRAME_COUNTS if position is not None else ():
            assert position is not None
            for dtype in (torch.float32, torch.bfloat16):
                x = torch.randn(3, site.num_heads, num_frames, site.channels // site.num_heads, dtype=dtype)
                _expect_like(spec, position(x), x.shape, dtype)
                expect(torch.equal(position(x), position(x)), spec, "is not deterministic")


def check_bias(spec: BiasSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Give one number per head and pair of frames, in the dtype of its weights."""
    build_on_meta(spec, lambda: spec.build(site))
    with seeded():
        bias = spec.build(site)
        for num_frames in FRAME_COUNTS if bias is not None else ():
            assert bias is not None
            for dtype in (torch.float32, torch.bfloat16):
                out = bias.to(dtype)(num_frames)
                learned = any(True for _ in bias.parameters())
                _expect_like(
                    spec, out, torch.Size((site.num_heads, num_frames, num_frames)), dtype if learned else out.dtype
                )
                expect(bool(torch.isfinite(out).all()), spec, "returns numbers that are not finite")


def check_conditioner(spec: ConditionerSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Widen by exactly `extra_channels`, and keep the time embedding's batch and width."""
    build_on_meta(spec, lambda: spec.build(site))
    with seeded():
        conditioner = spec.build(site)
        expect(isinstance(conditioner, Conditioner), spec, f"builds {type(conditioner).__name__}, no Conditioner")
        noisy, cond = torch.randn(BATCH, 4, NUM_FRAMES, SIDE, SIDE), replace(conditioning(site), inputs=inputs)
        wide = conditioner.concat(noisy, cond)
        extra = conditioner.extra_channels
        _expect_like(spec, wide, torch.Size((BATCH, 4 + extra, NUM_FRAMES, SIDE, SIDE)), noisy.dtype)
        expect(torch.equal(wide[:, :4], noisy), spec, "does not put the noisy latent first")
        assert cond.time_embed is not None
        embed = conditioner.embed(cond.time_embed, cond, NUM_FRAMES)
        due = [(BATCH, num_frames, site.time_dim) for num_frames in (1, NUM_FRAMES)]
        shape = tuple(embed.shape)
        expect(shape in due, spec, f"returns a time embedding of shape {shape}, not {due[0]} or {due[1]}")


def _video(site: Site, num_frames: int) -> Tensor:
    return torch.randn(BATCH, site.channels, num_frames, SIDE, SIDE)


def _same_shape(spec: Spec, layer: nn.Module, site: Site, num_frames: int) -> Tensor:
    x = _video(site, num_frames)
    with torch.no_grad():
        out: Tensor = layer(x, conditioning(site))
    _expect_like(spec, out, x.shape, x.dtype)
    return out


def _expect_like(spec: Spec, out: Tensor, shape: torch.Size, dtype: torch.dtype) -> None:
    expect(out.shape == shape, spec, f"returns shape {tuple(out.shape)} where {tuple(shape)} is due")
    expect(out.dtype == dtype, spec, f"returns {out.dtype} where {dtype} is due")
