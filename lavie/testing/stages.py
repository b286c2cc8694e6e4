"""What stages and their sources promise; small stages make videos, big ones are checked by shape alone."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder, AutoencoderKLSpec
from lavie.blocks.base import Site
from lavie.errors import SpecError
from lavie.samplers.noise import NoiseSource
from lavie.stages.base import Request, Stage, StageSpec, VideoShape
from lavie.stages.source import Source, SourceSpec
from lavie.testing.expect import BATCH, TOLERANCE, build_on_meta, expect, seeded
from lavie.testing.networks import is_small

_MOST_WORK = 300_000
"""Steps times pixels of a video up to which a stage makes one."""


def check_stage(spec: StageSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Build without memory, and say what parts, steps and videos there will be; make them where that is quick."""
    stage = build_on_meta(spec, spec.build)
    expect(isinstance(stage, Stage), spec, f"builds {type(stage).__name__}, which is no Stage")
    expect([*stage.parts()] == [*spec.parts()], spec, f"has the parts {[*stage.parts()]}, its spec {[*spec.parts()]}")
    steps, shape = stage.num_steps(), spec.shape()
    expect(steps >= 1, spec, f"announces {steps} steps")
    if is_small(stage) and steps * shape.num_frames * shape.height * shape.width <= _MOST_WORK:
        with seeded(), torch.inference_mode():
            _check_videos(spec, spec.build().eval(), shape)


def _check_videos(spec: StageSpec, stage: Stage, shape: VideoShape) -> None:
    requests, seen = [Request("a", seed=seed) for seed in range(BATCH)], []
    try:
        video = stage.generate(requests, lambda name, step: seen.append(name))
    except SpecError:
        return  # it makes videos from videos
    expect(len(seen) == stage.num_steps(), spec, f"reports {len(seen)} steps and announces {stage.num_steps()}")
    made = (video.num_frames, video.height, video.width, video.fps)
    due = (shape.num_frames, shape.height, shape.width, shape.fps)
    expect(made == due, spec, f"makes videos of {made} where its spec says {due}")
    pixels = video.video()
    expect(bool(torch.isfinite(pixels).all()) and float(pixels.abs().max()) <= 1, spec, "leaves [-1, 1]")
    expect(not torch.equal(pixels[0], pixels[1]), spec, "makes the same video from two seeds")
    alone = torch.cat([stage.generate([request]).video() for request in requests])
    gap = float((pixels - alone).abs().max())
    expect(gap <= 10 * TOLERANCE, spec, f"mixes the videos of a batch: they differ by {gap:.1e} from those made alone")


def check_source(spec: SourceSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Give the network the same inputs, by name and size, when videos are made and when it is trained."""
    source = spec.build()
    expect(isinstance(source, Source), spec, f"builds {type(source).__name__}, which is no Source")
    with seeded(), torch.inference_mode():
        autoencoder = _fitting(spec, source)
        side = 8 * autoencoder.factor
        own = VideoShape(num_frames=9, height=side, width=side)
        video = torch.rand(BATCH, 3, own.num_frames, side, side) * 2 - 1
        given = source.given(video, own.fps)
        expect(len(given) == BATCH, spec, f"gives {len(given)} videos for {BATCH}")
        shapes = {spec.shape(each.shape, own) for each in given}
        expect(shapes == {own}, spec, f"makes {shapes} of what it gave to have {own} made")
        noise = NoiseSource(1, source.stage)
        used = source.inputs(given[0], own, autoencoder, noise)
        again = source.inputs(given[0], own, autoencoder, noise)
        for name, each in used.items():
            expect(len(each) == 1, spec, f"makes an input {name} for {len(each)} videos of one")
            expect(torch.equal(each, again[name]), spec, f"does not repeat its input {name}")
        latent = autoencoder.encode(video)
        _check_sizes(spec, source.channels(autoencoder), used, latent)
        shown = source.examples(video, latent, torch.Generator().manual_seed(0))
        _expect_alike(spec, "shows in training", shown, used)
        if not source.is_required:
            _expect_alike(spec, "makes of nothing", source.inputs(None, own, autoencoder, noise), used)


def _fitting(spec: SourceSpec, source: Source) -> Autoencoder:
    """Return a small autoencoder of a factor that the source goes with."""
    refusals = []
    for levels in range(1, 5):
        tiny = AutoencoderKLSpec(channels=(4,) * levels, num_res_blocks=1, norm_groups=2, attention=False)
        autoencoder = tiny.build().eval()
        try:
            source.channels(autoencoder)
        except SpecError as error:
            refusals.append(str(error))
        else:
            return autoencoder
    expect(False, spec, f"accepts no autoencoder: {'; '.join(refusals)}")
    raise AssertionError


def _check_sizes(spec: SourceSpec, channels: Mapping[str, int], used: Mapping[str, Tensor], latent: Tensor) -> None:
    large = {name: tuple(each.shape[1:]) for name, each in used.items() if each.ndim == 5}
    due = {name: (count, *latent.shape[2:]) for name, count in channels.items()}
    expect(large == due, spec, f"makes inputs of {large} where {due} are due beside the latent")


def _expect_alike(spec: SourceSpec, what: str, found: Mapping[str, Tensor], used: Mapping[str, Tensor]) -> None:
    shapes, due = ({name: tuple(each.shape[1:]) for name, each in group.items()} for group in (found, used))
    expect(shapes == due, spec, f"{what} inputs of {shapes}, and makes videos with {due}")
    bad = [name for name, each in found.items() if each.is_floating_point() and not torch.isfinite(each).all()]
    expect(not bad, spec, f"{what} inputs that are not finite: {', '.join(bad)}")
