"""Frames in the input layer: interpolation, image to video, first and last frame, and the rest of a video."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, final

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder
from lavie.errors import Fault, SpecError
from lavie.samplers.noise import NoiseSource
from lavie.stages.base import MAX_FRAMES, Given, VideoShape
from lavie.stages.lazy_video import PixelVideo
from lavie.stages.source import Source, SourceSpec

Pattern = Literal["none", "first", "first_and_last", "beginning", "all"]


@final
class GivenFrames(Source):
    """Latents of the frames that are given, laid out along the frames that are made.

    A frame that is not given sees a copy of the nearest one, the earlier of two (arXiv 2309.15103, §3.3: with every
    fourth frame given, frame p sees key (p + 1) // 4), or zeros.
    """

    def __init__(self, spec: "GivenFramesSpec") -> None:
        self.spec = spec
        self.stage = "interpolation" if spec.every > 1 else "base"
        self.is_required = not spec.mask or spec.every > 1

    def channels(self, autoencoder: Autoencoder) -> Mapping[str, int]:
        """Return those of `frames`: the latent's, and the mask's."""
        return {"frames": autoencoder.latent_channels + self.spec.mask}

    def inputs(
        self, given: Given | None, shape: VideoShape, autoencoder: Autoencoder, noise: NoiseSource
    ) -> Mapping[str, Tensor]:
        """Return `frames`, of the latent's size; its last channel is the mask, if there is one."""
        if given is None:
            size = (shape.height // autoencoder.factor, shape.width // autoencoder.factor)
            nothing = torch.zeros(1, autoencoder.latent_channels, 0, *size).to(autoencoder.anchor)
            return {"frames": self.lay_out(nothing, (), shape.num_frames)}
        places = self._places(given, shape)
        video = given.video
        if (video.height, video.width) != (shape.height, shape.width):
            sizes = f"{video.height}×{video.width} where the stage makes {shape.height}×{shape.width}"
            raise SpecError([Fault("given", f"frames of {sizes}; resize them")])
        generator = noise.generator("posterior") if self.spec.posterior == "sample" else None
        return {"frames": self.lay_out(video.encode(autoencoder, generator), places, shape.num_frames)}

    def given(self, video: Float[Tensor, "b 3 f h w"], fps: float) -> list[Given]:
        """Return every `every`-th frame where frames are put between, and else the first."""
        num_frames, every = video.shape[2], self.spec.every
        places = tuple(range(0, num_frames, every)) if every > 1 else (0,)
        frames = PixelVideo(video[:, :, list(places)], fps / every)
        return [Given(each, places) for each in frames.split()]

    def examples(
        self,
        video: Float[Tensor, "b 3 f h w"],
        latent: Float[Tensor, "b c f p q"],
        generator: torch.Generator,
        through: Autoencoder | None = None,
    ) -> Mapping[str, Tensor]:
        """Return `frames` of these videos, given in one of the patterns, drawn per video."""
        num_frames, laid_out = latent.shape[2], []
        for each in torch.split(latent, 1):
            pattern = self.spec.patterns[_draw(len(self.spec.patterns), generator)]
            places = _pattern(pattern, num_frames, self.spec.every, generator)
            laid_out.append(self.lay_out(each[:, :, list(places)], places, num_frames))
        return {"frames": torch.cat(laid_out)}

    def settle(self, denoised: Float[Tensor, "b c f h w"], inputs: Mapping[str, Tensor]) -> Float[Tensor, "b c f h w"]:
        """Put given frames in their places, if they are to replace what is made there."""
        if not self.spec.replace:
            return denoised
        known, mask = inputs["frames"][:, :-1], inputs["frames"][:, -1:]
        return torch.where(mask > 0, known.to(denoised), denoised)

    def _places(self, given: Given, shape: VideoShape) -> tuple[int, ...]:
        count, last = given.video.num_frames, shape.num_frames - 1
        places = given.places if given.places is not None else self.spec.places(count)
        if len(places) != count or list(places) != sorted(set(places)):
            raise SpecError([Fault("given.places", f"need {count} different places in order, got {list(places)}")])
        if places and not 0 <= places[0] <= places[-1] <= last:
            outside, remedy = (places[0], "") if places[0] < 0 else (places[-1], "; ask for more frames")
            reason = f"frame {outside} is given, but the video has frames 0 to {last}{remedy}"
            raise SpecError([Fault("given.places", reason)])
        return places

    def lay_out(self, latent: Float[Tensor, "b c n p q"], places: Sequence[int], num_frames: int) -> Tensor:
        """Return latents of the frames at `places` among frames that are not given, then the mask, if there is one."""
        known = torch.zeros(len(latent), latent.shape[1], num_frames, *latent.shape[3:]).to(latent)
        if places and self.spec.fill == "nearest":
            known = latent[:, :, [nearest(places, frame) for frame in range(num_frames)]]
        elif places:
            known[:, :, list(places)] = latent
        if not self.spec.mask:
            return known
        mask = torch.zeros_like(known[:, :1])
        mask[:, :, list(places)] = 1
        return torch.cat((known, mask), dim=1)


def nearest(places: Sequence[int], frame: int) -> int:
    """Return which of the given frames' places is nearest to a frame; of two, the earlier one."""
    return min(range(len(places)), key=lambda index: (abs(places[index] - frame), index))


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _pattern(pattern: Pattern, num_frames: int, every: int, generator: torch.Generator) -> tuple[int, ...]:
    match pattern:
        case "none":
            return ()
        case "first":
            return (0,)
        case "first_and_last":
            return (0, num_frames - 1) if num_frames > 1 else (0,)
        case "beginning":
            return tuple(range(1 + _draw(max(num_frames - 1, 1), generator)))
        case "all":
            return tuple(range(0, num_frames, every))


@final
class GivenFramesSpec(SourceSpec):
    """Given frames enter the network's input layer; a conditioner `concat` of the name `frames` takes them."""

    type: Literal["given_frames"] = "given_frames"
    every: Annotated[int, Field(ge=1, le=64)] = 1
    """How many frames of the result lie between one given frame and the next, where a request does not say: 4 turns
    16 frames into 61."""
    fill: Literal["nearest", "zeros"] = "zeros"
    """What frames that are not given see."""
    mask: bool = True
    """Append a channel that is 1 where a frame is given. Without it, or where frames are put between, at least one
    frame must be."""
    replace: bool = False
    """Put given frames in their places after every prediction, so that they come out as they went in (arXiv 2204.03458,
    §3.1). The release lets the network make all frames anew."""
    posterior: Literal["mode", "sample"] = "mode"
    """The autoencoder's answer: its mode, or a draw as in the release."""
    patterns: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=64)] = ("first",)
    """What training gives, each as often as the others: `all` is every `every`-th frame."""

    @model_validator(mode="after")
    def _knows_what_to_replace(self) -> Self:
        if self.replace and not self.mask:
            raise ValueError("replace: only a mask tells which frames are given; set mask to true")
        return self

    def places(self, count: int) -> tuple[int, ...]:
        """Return which frames of the result `count` given ones stand for, where a request does not say."""
        return tuple(range(0, count * self.every, self.every))

    def shape(self, given: VideoShape, own: VideoShape) -> VideoShape:
        """Return the own shape; where frames are put between those given, as many as that makes, at the given size.

        Raises:
            SpecError: if those are too many.
        """
        if self.every == 1:
            return own
        frames = self.every * (given.num_frames - 1) + 1
        return own.changed(num_frames=frames, height=given.height, width=given.width)

    def wanted(self, own: VideoShape) -> VideoShape:
        """Return the own size; frames are put between any number of given ones, and made behind half a video of them.

        A longer video would leave little to be made: it is the last frames that are to be continued.
        """
        most = max(own.num_frames // 2, 1) if self.every == 1 else (MAX_FRAMES - 1) // self.every + 1
        return own.model_copy(update={"num_frames": most})

    def build(self) -> GivenFrames:
        """Build it."""
        return GivenFrames(self)
