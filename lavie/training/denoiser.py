"""The phase that trains the denoiser, with its text encoder, on images, on clips, or on both side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, final

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from lavie.blocks.autoencoder import Autoencoder
from lavie.blocks.base import Conditioning
from lavie.data.base import DatasetSpec
from lavie.errors import Fault, SpecError, WeightsError
from lavie.registry import installed
from lavie.samplers.prediction import add_noise, target
from lavie.samplers.schedule import RectifiedFlow, Schedule
from lavie.spec import Fraction, NonNegative, Spec
from lavie.stages.base import Given, Request
from lavie.stages.latent_diffusion import LatentDiffusion, LatentDiffusionSpec
from lavie.stages.loading import SHELF
from lavie.training.losses import video_and_image_loss
from lavie.training.phase import Batch, Phase, PhaseSpec, Source, held_back
from lavie.training.pictures import draw_clips
from lavie.training.randomness import Draws
from lavie.weights.files import read_manifest
from lavie.weights.loading import load_into

BatchCount = Annotated[int, Field(ge=0, le=65536)]


class TimestepsSpec(Spec):
    """How noise levels are drawn: for flow matching a logit-normal time mixed with a uniform one (arXiv 2403.03206,
    §3.1); for other schedules every timestep is equally likely."""

    logit_mean: Annotated[float, Field(ge=-10, le=10)] = 0.0
    """Mean of the logit of the flow time; above 0 means more noise."""
    logit_std: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Standard deviation of the logit of the flow time."""
    uniform_fraction: Fraction = 0.15
    """Share of flow times drawn evenly in [0, 1]."""
    shift: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """s in t' = s t / (1 + (s - 1) t); above 1 means more noise, as the redundant frames of a video need."""


class DenoiserPhaseSpec(PhaseSpec):
    """Train the denoiser: on images alone (temporal layers rest), on clips, or on clips with images riding along."""

    type: Literal["denoiser"] = "denoiser"
    images: DatasetSpec | None = None
    """Where images come from: clips of one frame."""
    clips: DatasetSpec | None = None
    """Where clips come from."""
    images_per_step: BatchCount = 32
    """Images per step, where there are no clips."""
    clips_per_step: BatchCount = 8
    """Clips per step."""
    images_per_clip: Annotated[int, Field(ge=0, le=4096)] = 4
    """Images that ride along with each clip, where there are images."""
    image_loss_weight: NonNegative = 1.0
    """Weight of the image loss beside the video loss."""
    first_frame_weight: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """How often the first frame of a clip counts. Above 1 it breaks the symmetry between a motion and its reverse,
    which agree on everything but which end comes first, and so have no gradient between them at the start."""
    timesteps: TimestepsSpec = TimestepsSpec()
    text_dropout: Fraction = 0.1
    """How often a caption is replaced by the empty one, for guidance."""
    train_text_encoder: bool = False
    """Train the text encoder too."""
    given_through: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Model whose autoencoder half of the given videos pass first, as all do in a cascade behind it: the name of a
    shipped one, or a folder of weights."""

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if self.images is None and self.clips is None:
            raise ValueError("images and clips are both missing; a denoiser phase needs at least one of them")
        return self

    def build(self, stage: LatentDiffusion) -> "DenoiserPhase":
        """Build the phase around the networks of a stage, whose autoencoder stays as it is.

        Raises:
            SpecError: if there are images for a stage whose inputs only clips have, or `given_through` names no model
                or has no use.
        """
        if self.images is not None and stage.source is not None and not stage.source.is_framewise:
            reason = "the stage starts from frames of a clip, which an image has none of; train it on clips alone"
            raise SpecError([Fault("images", reason)])
        if self.given_through is not None and (stage.source is None or not stage.source.sees_pixels):
            raise SpecError([Fault("given_through", "the stage is given no videos as pixels; leave this out")])
        return DenoiserPhase(self, stage)


@dataclass(frozen=True)
class Scene:
    """What one step shows: pixels with the images last, and the captions that belong to them."""

    pixels: Float[Tensor, "b 3 f h w"]
    captions: Sequence[Sequence[str]]
    """Per sample: the caption of the video, then of each image."""
    num_images: int


@final
class DenoiserPhase(Phase):
    """Trains the denoiser and, if the spec says so, the text encoder."""

    def __init__(self, spec: DenoiserPhaseSpec, stage: LatentDiffusion) -> None:
        self.spec: DenoiserPhaseSpec = spec
        self.stage = stage
        self.schedule = stage.spec.schedule.build()
        self.images = spec.images.build() if spec.images is not None else None
        self.clips = spec.clips.build() if spec.clips is not None else None
        self.through = autoencoder_of(spec.given_through) if spec.given_through is not None else None

    def trained(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"denoiser": self.stage.denoiser}
        if self.spec.train_text_encoder:
            modules["text_encoder"] = self.stage.text_encoder
        return modules

    def sources(self) -> dict[str, Source]:
        spec, sources = self.spec, {}
        if self.clips is not None:
            sources["clips"] = Source(self.clips, spec.clips_per_step)
        if self.images is not None:
            count = spec.images_per_step if self.clips is None else spec.clips_per_step * spec.images_per_clip
            sources["images"] = Source(self.images, count)
        return {name: source for name, source in sources.items() if source.per_step}

    def losses(self, batches: Mapping[str, Batch], draws: Draws) -> dict[str, Tensor]:
        scene = compose(batches)
        captions = drop(scene.captions, self.spec.text_dropout, draws.generator("text dropout"))
        latent, inputs = self._latent(scene, draws)
        noise = torch.randn(latent.shape, generator=draws.generator("noise")).to(latent)
        sigmas = draw_sigmas(self.spec.timesteps, self.schedule, len(latent), draws.generator("timestep"))
        timestep = torch.tensor([self.schedule.timestep(sigma) for sigma in sigmas.tolist()]).to(latent)
        sigma = sigmas.to(latent)
        with torch.set_grad_enabled(self.spec.train_text_encoder):
            context = self.encode(captions)
        cond = Conditioning(context, num_images=scene.num_images, inputs=inputs)
        noisy = add_noise(latent, noise, sigma, self.schedule)
        prediction = self.stage.denoiser(noisy, timestep, cond)
        goal = target(latent, noise, sigma, self.schedule, self.stage.spec.prediction_type)
        video, image = video_and_image_loss(prediction, goal, scene.num_images, self.spec.first_frame_weight)
        if video is None:
            assert image is not None
            return {"loss": image, "image_loss": image}
        if image is None:
            return {"loss": video, "video_loss": video}
        return {"loss": video + self.spec.image_loss_weight * image, "video_loss": video, "image_loss": image}

    @torch.no_grad()
    def _latent(self, scene: Scene, draws: Draws) -> tuple[Float[Tensor, "b c f h w"], Mapping[str, Tensor]]:
        """Return what the network is to make of a scene, and the inputs that it makes it from."""
        source, autoencoder = self.stage.source, self.stage.autoencoder
        latent = autoencoder.encode(scene.pixels)
        if source is None:
            return latent, {}
        through = None if self.through is None else self.through.to(latent.device)
        inputs = source.examples(scene.pixels, latent, draws.generator("source"), through)
        baseline = source.baseline(inputs, autoencoder)
        return latent if baseline is None else latent - baseline, inputs

    def encode(self, captions: Sequence[Sequence[str]]) -> Float[Tensor, "b s l d"]:
        """Encode the captions of each sample, one slot each."""
        context = self.stage.text_encoder.encode([caption for each in captions for caption in each])
        return rearrange(context, "(b s) l d -> b s l d", b=len(captions))

    def look(self, averaged: Mapping[str, nn.Module], picture: Path) -> dict[str, float]:
        """Make clips for held-back captions with the averaged weights, and let the metric judge them."""
        evaluation = self.spec.evaluation
        own = self.clips or self.images
        assert own is not None
        clips = held_back(evaluation, own)
        stage = sampling_stage(self.stage, averaged, num_frames=clips[0].video.shape[1])
        given: Sequence[Given | None] = [None] * len(clips)
        if stage.source is not None:
            given = stage.source.given(torch.stack([clip.video for clip in clips]), clips[0].fps)
        requests = [Request(clip.caption, seed=i, given=given[i]) for i, clip in enumerate(clips)]
        made = torch.cat([stage.generate(requests[i : i + 16]).video() for i in range(0, len(requests), 16)])
        draw_clips(made[:24], [clip.caption for clip in clips[:24]], picture)
        if evaluation.metric is None:
            return {}
        metric = evaluation.metric.build()
        metric.update(made, [clip.labels for clip in clips])
        return metric.compute()


def autoencoder_of(model: str) -> Autoencoder:
    """Load the autoencoder of a model: one that ships with lavie, by its name, or a folder of weights.

    Raises:
        SpecError: if there is none of that name, or it is damaged.
    """
    folder = SHELF / model if (SHELF / model).is_dir() else Path(model)
    try:
        spec = installed().load(LatentDiffusionSpec, read_manifest(folder).get("spec"), str(folder))
        autoencoder = spec.autoencoder.build().eval().requires_grad_(False)
        load_into({"autoencoder": autoencoder}, folder, partly=True)
    except WeightsError as error:
        raise SpecError([Fault("given_through", f"{error}; name a model that ships, or a folder of weights")]) from None
    return autoencoder


def sampling_stage(stage: LatentDiffusion, averaged: Mapping[str, nn.Module], num_frames: int) -> LatentDiffusion:
    """Return a stage of `num_frames` frames around averaged modules, and the given stage's where there are none."""
    spec = stage.spec.model_copy(update={"video": stage.spec.video.model_copy(update={"num_frames": num_frames})})
    parts = {"text_encoder": stage.text_encoder, "autoencoder": stage.autoencoder, "denoiser": stage.denoiser}
    return LatentDiffusion(spec, **{**parts, **averaged})  # type: ignore[arg-type]


def compose(batches: Mapping[str, Batch]) -> Scene:
    """Put images behind the frames of clips; images alone become frames without a video."""
    images, clips = batches.get("images"), batches.get("clips")
    if clips is None:
        assert images is not None
        return Scene(images.video, [["", caption] for caption in images.captions], num_images=1)
    if images is None:
        return Scene(clips.video, [[caption] for caption in clips.captions], num_images=0)
    num_clips = len(clips.captions)
    beside = rearrange(images.video, "(b m) c 1 h w -> b c m h w", b=num_clips)
    m = beside.shape[2]
    captions = [[caption, *images.captions[i * m : (i + 1) * m]] for i, caption in enumerate(clips.captions)]
    return Scene(torch.cat([clips.video, beside], dim=2), captions, num_images=m)


def drop(captions: Sequence[Sequence[str]], rate: float, generator: torch.Generator) -> list[list[str]]:
    """Replace each caption by the empty one with probability `rate`."""
    lots = iter(torch.rand(sum(map(len, captions)), generator=generator).tolist())
    return [["" if next(lots) < rate else caption for caption in each] for each in captions]


def draw_sigmas(
    spec: TimestepsSpec, schedule: Schedule, count: int, generator: torch.Generator
) -> Float[Tensor, " count"]:
    """Draw noise-to-signal ratios as the spec says, within what the schedule's table holds."""
    if not isinstance(schedule, RectifiedFlow):
        return schedule.sigmas[torch.randint(schedule.num_train_timesteps, (count,), generator=generator)]
    normal = torch.randn(count, generator=generator, dtype=torch.float64)
    even = torch.rand(count, generator=generator, dtype=torch.float64)
    lot = torch.rand(count, generator=generator, dtype=torch.float64)
    time = torch.where(lot < spec.uniform_fraction, even, (spec.logit_mean + spec.logit_std * normal).sigmoid())
    time = spec.shift * time / (1 + (spec.shift - 1) * time)
    time = time.clamp(1 - RectifiedFlow.LAST, RectifiedFlow.LAST)
    return time / (1 - time)
