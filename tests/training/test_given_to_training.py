"""Stages that start from videos learn from what is cut out of clips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import small_registry
from small_parts import BASE, INTERPOLATION, UPSCALING, Data, changed, small_part

from lavie.data.shapes import ShapesSpec
from lavie.errors import SpecError
from lavie.stages import LatentDiffusion, LatentVideo, Request, VideoShape
from lavie.training import Draws, TrainSpec
from lavie.training.denoiser import DenoiserPhase, DenoiserPhaseSpec
from lavie.training.feed import feed
from lavie.training.phase import EvaluationSpec

FIRST_FRAME = changed(
    source={"type": "given_frames", "patterns": ["first"]},
    denoiser_conditioners=[{"type": "concat", "name": "frames", "channels": 5}],
)
SIDES = {"interpolation": 16, "upscaling": 64, "base": 16}
GIVEN = {
    "interpolation": VideoShape(num_frames=2, height=16, width=16, fps=2),
    "upscaling": VideoShape(num_frames=5, height=16, width=16, fps=8),
    "base": VideoShape(num_frames=1, height=16, width=16, fps=8),
}
"""What is cut out of a clip of 5 frames."""
STAGES = {"interpolation": INTERPOLATION, "upscaling": UPSCALING, "base": FIRST_FRAME}


def phase_of(name: str, **fields: Any) -> DenoiserPhase:
    side = SIDES[name]
    clips = ShapesSpec(num_frames=5, height=side, width=side)
    evaluation = EvaluationSpec(num_clips=2)
    spec = DenoiserPhaseSpec(
        name="p", clips=clips, clips_per_step=2, num_steps=1, **{"evaluation": evaluation, **fields}
    )
    return spec.build(small_part(STAGES[name]))


def loss_of(phase: DenoiserPhase) -> torch.Tensor:
    (batches,) = feed(phase.sources(), seed=0, phase="p", first_step=0, num_steps=1, num_workers=0)
    return phase.losses(batches, Draws(0, "p", 0))["loss"]


@pytest.mark.parametrize("name", STAGES)
def test_the_network_learns_to_read_what_is_given(name: str) -> None:
    phase = phase_of(name)
    loss_of(phase).backward()  # type: ignore[no-untyped-call]
    gradient = phase.stage.denoiser.conv_in.weight.grad[:, 4:]  # type: ignore[union-attr, index]
    assert bool(torch.isfinite(gradient).all())
    assert bool(gradient.abs().amax(dim=(0, 2, 3)).all())


@pytest.mark.parametrize("name", STAGES)
def test_a_look_gives_the_stage_what_it_was_trained_to_start_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []
    generate = LatentDiffusion.generate

    def note(stage: LatentDiffusion, requests: Sequence[Request]) -> LatentVideo:
        asked.extend(requests)
        return generate(stage, requests)

    monkeypatch.setattr(LatentDiffusion, "generate", note)
    phase = phase_of(name)
    phase.look(phase.trained(), tmp_path / "look.png")
    given = [request.given.shape for request in asked if request.given is not None]
    assert given == [GIVEN[name]] * 2
    assert (tmp_path / "look.png").stat().st_size > 100


def test_images_may_learn_super_resolution_too() -> None:
    images = ShapesSpec(num_frames=1, height=64, width=64)
    loss = loss_of(phase_of("upscaling", images=images, images_per_clip=2))
    assert bool(torch.isfinite(loss))


@pytest.mark.parametrize("name", ["interpolation", "base"])
def test_images_have_no_frames_to_start_from_and_are_refused(name: str) -> None:
    images = ShapesSpec(num_frames=1, height=16, width=16)
    with pytest.raises(SpecError, match="images: the stage starts from frames of a clip, which an image has none of"):
        phase_of(name, images=images)


def test_a_recipe_names_the_phase_that_does_not_fit() -> None:
    clips = {"type": "shapes", "num_frames": 5, "height": 16, "width": 16}
    good: Data = {"type": "denoiser", "name": "a", "clips": clips, "num_steps": 1}
    bad = {**good, "name": "b", "images": {**clips, "num_frames": 1}}
    recipe = small_registry().load(TrainSpec, {"type": "train", "model": INTERPOLATION, "phases": [good, bad]})
    with pytest.raises(SpecError, match=r"phases\[1\]\.images: the stage starts from frames of a clip"):
        recipe.build()


def test_a_stage_without_a_source_takes_images() -> None:
    phase = DenoiserPhaseSpec(
        name="p", images=ShapesSpec(num_frames=1, height=16, width=16), num_steps=1, images_per_step=2
    ).build(small_part(BASE))
    assert bool(torch.isfinite(loss_of(phase)))


def test_given_videos_pass_the_autoencoder_of_a_model_before() -> None:
    plain, behind = phase_of("upscaling"), phase_of("upscaling", given_through="base-tiny")
    behind.stage.load_state_dict(plain.stage.state_dict())
    assert not torch.equal(loss_of(plain), loss_of(behind))
    assert behind.through is not None
    assert not any(each.requires_grad for each in behind.through.parameters())


def test_the_autoencoder_of_a_model_before_goes_where_the_stage_is() -> None:
    phase = phase_of("upscaling", given_through="base-tiny")
    phase.stage.to("meta")
    (batches,) = feed(phase.sources(), seed=0, phase="p", first_step=0, num_steps=1, num_workers=0)
    there = {name: batch.to(torch.device("meta")) for name, batch in batches.items()}
    assert phase.losses(there, Draws(0, "p", 0))["loss"].is_meta
    assert phase.through is not None
    assert phase.through.anchor.is_meta


def test_only_given_pixels_can_pass_an_autoencoder() -> None:
    with pytest.raises(SpecError, match="given_through: the stage is given no videos as pixels; leave this out"):
        phase_of("interpolation", given_through="base-tiny")


def test_a_model_that_given_videos_pass_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"given_through: .*nowhere has no manifest\.json.*; name a model that ships"):
        phase_of("upscaling", given_through=str(tmp_path / "nowhere"))
