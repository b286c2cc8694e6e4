"""`check_component` catches sources and stages that break their contracts, and says so in words."""

from collections.abc import Mapping, Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder
from lavie.errors import Fault, SpecError
from lavie.samplers.noise import NoiseSource
from lavie.stages import Given, PixelVideo, Source, SourceSpec, Stage, StageSpec, VideoShape
from lavie.testing import check_component


class FirstLatent(Source):
    """A good source: every frame sees the latent of the first."""

    is_required = False

    def channels(self, autoencoder: Autoencoder) -> Mapping[str, int]:
        return {"first": autoencoder.latent_channels}

    def inputs(
        self, given: Given | None, shape: VideoShape, autoencoder: Autoencoder, noise: NoiseSource
    ) -> Mapping[str, Tensor]:
        if given is None:
            side = shape.height // autoencoder.factor
            return {"first": torch.zeros(1, autoencoder.latent_channels, shape.num_frames, side, side)}
        return self.examples(torch.empty(0), given.video.encode(autoencoder), torch.Generator(), shape.num_frames)

    def given(self, video: Tensor, fps: float) -> list[Given]:
        return [Given(each) for each in PixelVideo(video[:, :, :1], fps).split()]

    def examples(
        self, video: Tensor, latent: Tensor, generator: torch.Generator, num_frames: int | None = None
    ) -> Mapping[str, Tensor]:
        return {"first": latent[:, :, :1].expand(-1, -1, num_frames or latent.shape[2], -1, -1)}


class Announces(FirstLatent):
    def channels(self, autoencoder: Autoencoder) -> Mapping[str, int]:
        return {"first": autoencoder.latent_channels + 1}


class Dithers(FirstLatent):
    def inputs(self, *arguments: object) -> Mapping[str, Tensor]:
        return {name: x + torch.randn(()) for name, x in super().inputs(*arguments).items()}  # type: ignore[arg-type]


class TrainsOnMore(FirstLatent):
    def examples(
        self, video: Tensor, latent: Tensor, generator: torch.Generator, num_frames: int | None = None
    ) -> Mapping[str, Tensor]:
        shown = {**super().examples(video, latent, generator, num_frames)}
        return shown if num_frames else {**shown, "last": latent[:, :, -1:]}


class GivesAll(FirstLatent):
    def given(self, video: Tensor, fps: float) -> list[Given]:
        return [Given(PixelVideo(video[:1], fps))]


class MakesNothing(FirstLatent):
    def inputs(
        self, given: Given | None, shape: VideoShape, autoencoder: Autoencoder, noise: NoiseSource
    ) -> Mapping[str, Tensor]:
        return {} if given is None else super().inputs(given, shape, autoencoder, noise)


class WantsAnother(FirstLatent):
    def channels(self, autoencoder: Autoencoder) -> Mapping[str, int]:
        raise SpecError([Fault("source", f"factor {autoencoder.factor} is not mine")])


def source(build: type) -> SourceSpec:
    class TestedSpec(SourceSpec):
        type: Literal["tested"] = "tested"

        def shape(self, given: VideoShape, own: VideoShape) -> VideoShape:
            return own

        def wanted(self, own: VideoShape) -> VideoShape:
            return own

        def build(self) -> Source:
            return build()  # type: ignore[no-any-return]

    return TestedSpec()


def test_a_good_source_passes() -> None:
    check_component(source(FirstLatent))


@pytest.mark.parametrize(
    ("build", "promise"),
    [
        (Announces, r"makes inputs of \{'first': \(4, 9, 8, 8\)\} where \{'first': \(5, 9, 8, 8\)\} are due"),
        (Dithers, "does not repeat its input first"),
        (TrainsOnMore, "shows in training inputs of .*'last': .* and makes videos with"),
        (GivesAll, "gives 1 videos for 2"),
        (MakesNothing, r"makes of nothing inputs of \{\}"),
        (WantsAnother, "accepts no autoencoder: source: factor 1 is not mine; source: factor 2 is not mine"),
        (torch.nn.Identity, "builds Identity, which is no Source"),
    ],
)
def test_a_source_that_breaks_its_contract_is_told_how(build: type, promise: str) -> None:
    with pytest.raises(AssertionError, match=f"source 'tested' {promise}"):
        check_component(source(build))


class Grey(Stage):
    """A stage that makes videos of one grey, told by the seed."""

    frames, steps, names, mixes = 2, 1, ("",), False

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def generate(self, requests: Sequence, on_step=None, keep=None) -> PixelVideo:  # type: ignore[no-untyped-def, type-arg]
        for _ in range(self.steps):
            on_step and on_step("base", None)
        levels = torch.tensor([(request.seed + self.mixes * len(requests)) / 10 for request in requests])
        return PixelVideo(levels.view(-1, 1, 1, 1, 1).expand(-1, 3, self.frames, 4, 4), 8.0)

    def parts(self) -> Mapping[str, Stage]:
        return {name: self for name in self.names}

    def num_steps(self) -> int:
        return 1

    def unknown_words(self, prompt: str) -> list[str]:
        return []


class TooLong(Grey):
    frames = 3


class Hurries(Grey):
    steps = 2


class OtherParts(Grey):
    names = ("base", "upscaling")


class Mixes(Grey):
    mixes = True


def stage(build: type[Stage]) -> StageSpec:
    class TestedSpec(StageSpec):
        type: Literal["tested"] = "tested"

        def parts(self) -> Mapping[str, StageSpec]:
            return {"": self}

        def shape(self, given: VideoShape | None = None) -> VideoShape:
            return VideoShape(num_frames=2, height=4, width=4, fps=8)

        def wanted(self) -> VideoShape | None:
            return None

        def build(self) -> Stage:
            return build()

    return TestedSpec()


def test_a_good_stage_passes() -> None:
    check_component(stage(Grey))


@pytest.mark.parametrize(
    ("build", "promise"),
    [
        (TooLong, r"makes videos of \(3, 4, 4, 8.0\) where its spec says \(2, 4, 4, 8.0\)"),
        (Hurries, "reports 2 steps and announces 1"),
        (OtherParts, r"has the parts \['base', 'upscaling'\], its spec \[''\]"),
        (Mixes, "mixes the videos of a batch"),
    ],
)
def test_a_stage_that_breaks_its_contract_is_told_how(build: type[Stage], promise: str) -> None:
    with pytest.raises(AssertionError, match=f"stage 'tested' {promise}"):
        check_component(stage(build))
