"""One latent diffusion run, from text and perhaps a video to a video: every stage of LaVie (arXiv 2309.15103, §3).

What sets the stages apart is data in their specs: the network, the source of its further inputs, the schedule.
"""

from collections.abc import Sequence
from typing import Literal, Self, final

import torch
from pydantic import model_validator
from torch import Tensor, nn

from lavie.blocks.autoencoder import Autoencoder, AutoencoderSpec
from lavie.blocks.base import Denoiser, DenoiserSpec
from lavie.blocks.conditioning import ConcatConditioner
from lavie.blocks.text import TextEncoder, TextEncoderSpec
from lavie.errors import Fault, SpecError
from lavie.samplers.base import Sampler, SamplerSpec
from lavie.samplers.guidance import Guidance, GuidanceSpec
from lavie.samplers.prediction import check_prediction
from lavie.samplers.schedule import Schedule, ScheduleSpec
from lavie.spec import PredictionType, Spec
from lavie.stages.base import Keep, OnStep, PromptSpec, Request, Stage, StageSpec, VideoShape
from lavie.stages.coverage import AtOnceSpec, Coverage, CoverageSpec
from lavie.stages.lazy_video import LatentVideo
from lavie.stages.residence import Always, Residence
from lavie.stages.run import Run
from lavie.stages.source import Source, SourceSpec
from lavie.stages.travel import segments


@final
class LatentDiffusion(Stage):
    """Text encoder, denoiser, sampler and autoencoder in a row."""

    def __init__(
        self,
        spec: "LatentDiffusionSpec",
        *,
        text_encoder: TextEncoder,
        autoencoder: Autoencoder,
        denoiser: Denoiser,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.text_encoder = text_encoder
        self.autoencoder = autoencoder
        self.denoiser = denoiser
        self.schedule: Schedule = spec.schedule.build()
        self.sampler: Sampler = spec.sampler.build(self.schedule)
        self.guidance: Guidance = spec.guidance.build()
        self.source: Source | None = spec.source.build() if spec.source is not None else None
        self.coverage: Coverage = spec.coverage.build(self.sampler, self.source)
        self.residence: Residence = Always()

    @property
    def name(self) -> str:
        """Return what the noise of this stage is drawn for."""
        return self.source.stage if self.source is not None else "base"

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], on_step: OnStep | None = None, keep: Keep | None = None
    ) -> LatentVideo:
        """Make one video per request; latents go through `keep`, which may know them from before.

        Raises:
            SpecError: if a request gives frames that the stage has no use for, or lacks those that it needs.
        """
        run = Run(self, requests, self._shape(requests), on_step)

        def make() -> Tensor:
            with self.residence.holding(self.denoiser):
                latent = self.coverage.latent(run)
            return run.finish(latent)

        latent = make() if keep is None else keep(self.name, make)
        return LatentVideo(latent.contiguous(), self.autoencoder, run.shape.fps)

    def parts(self) -> dict[str, Stage]:
        """Return itself, as the only part."""
        return {"": self}

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks by the names that they have in a folder of weights."""
        return {"denoiser": self.denoiser, "autoencoder": self.autoencoder, "text_encoder": self.text_encoder}

    def num_steps(self) -> int:
        """Return how many steps `on_step` is called for per video."""
        return self.coverage.num_steps(self.spec.shape().num_frames)

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the text encoder does not know or would cut off."""
        return [word for text in segments(prompt) for word in self.text_encoder.lost_words(self.spec.prompt.text(text))]

    def _shape(self, requests: Sequence[Request]) -> VideoShape:
        shapes = []
        for request in requests:
            if request.given is None and self.source is not None and self.source.is_required:
                raise SpecError([Fault("given", f"the stage {self.name} makes videos from videos; give it one")])
            if request.given is not None and self.source is None:
                raise SpecError([Fault("given", "the model starts from text alone; it has no place for given frames")])
            shapes.append(self.spec.shape(request.given.shape if request.given is not None else None))
        if len(set(shapes)) > 1:
            raise SpecError([Fault("given", "the requests of one batch give videos of different sizes")])
        if shapes[0].height % self.autoencoder.factor or shapes[0].width % self.autoencoder.factor:
            size = f"{shapes[0].height}×{shapes[0].width}"
            reason = f"makes {size} pixels, no multiples of the autoencoder's factor {self.autoencoder.factor}"
            raise SpecError([Fault("given", f"{reason}; resize the video")])
        return shapes[0]


@final
class LatentDiffusionSpec(StageSpec):
    """One latent diffusion run."""

    type: Literal["latent_diffusion"] = "latent_diffusion"
    video: VideoShape = VideoShape()
    """What comes out; a stage that starts from a video takes its size from that."""
    prompt: PromptSpec = PromptSpec()
    """What becomes of the user's prompt."""
    text_encoder: TextEncoderSpec
    """Turns prompts into context for the denoiser."""
    autoencoder: AutoencoderSpec
    """Turns latents into pixels."""
    schedule: ScheduleSpec
    """Noise levels that the denoiser was trained on."""
    prediction_type: PredictionType = "epsilon"
    """What the denoiser predicts."""
    sampler: SamplerSpec
    """The solver and its time grid."""
    guidance: GuidanceSpec
    """How conditional and unconditional predictions are combined."""
    denoiser: DenoiserSpec
    """The network."""
    source: SourceSpec | None = None
    """What is made of a given video; without one, the stage starts from text alone."""
    coverage: CoverageSpec = AtOnceSpec()
    """How videos larger than the network sees at once are made."""

    @model_validator(mode="after")
    def _prediction_fits(self) -> Self:
        check_prediction(self.schedule.build(), self.prediction_type)
        return self

    def parts(self) -> dict[str, StageSpec]:
        """Return itself, as the only part."""
        return {"": self}

    def networks(self) -> dict[str, Spec]:
        """Return the specs of the networks by the names that they have in a folder of weights."""
        return {"denoiser": self.denoiser, "autoencoder": self.autoencoder, "text_encoder": self.text_encoder}

    def shape(self, given: VideoShape | None = None) -> VideoShape:
        """Return size and rate of the videos that come out, with and without a video going in."""
        return self.video if given is None or self.source is None else self.source.shape(given, self.video)

    def wanted(self) -> VideoShape | None:
        """Return the shape that a given video should have, its frames being the most; None if the stage takes none."""
        return None if self.source is None else self.source.wanted(self.video)

    def build(self) -> LatentDiffusion:
        """Build the stage with fresh weights.

        Raises:
            ValueError: if widths or sizes of the parts do not fit one another.
        """
        autoencoder = self.autoencoder.build()
        for side in ("height", "width"):
            if (size := getattr(self.video, side)) % autoencoder.factor:
                reason = f"{size} is no multiple of the autoencoder's factor {autoencoder.factor}"
                raise SpecError([Fault(f"video.{side}", reason)])
        stage = LatentDiffusion(
            self, text_encoder=self.text_encoder.build(), autoencoder=autoencoder, denoiser=self.denoiser.build()
        )
        check_inputs(stage)
        return stage


def check_inputs(stage: LatentDiffusion) -> None:
    """Refuse a network that reads inputs beside the latent which the stage's source does not give.

    Raises:
        SpecError: naming them.
    """
    given = stage.source.channels(stage.autoencoder) if stage.source is not None else {}
    for each in stage.denoiser.modules():
        if isinstance(each, ConcatConditioner) and given.get(each.name) != each.extra_channels:
            said = ", ".join(f"{name!r} of {channels}" for name, channels in given.items()) or "nothing"
            reason = f"the network reads {each.name!r} of {each.extra_channels} channels; the source gives {said}"
            raise SpecError([Fault("denoiser.conditioners", reason)])
