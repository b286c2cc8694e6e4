from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from lavie.data.shapes import ShapesSpec
from lavie.errors import SpecError
from lavie.metrics.base import Metric, MetricSpec
from lavie.registry import Registry
from lavie.samplers.schedule import FlowScheduleSpec, LinearScheduleSpec
from lavie.training import Batch, DenoiserPhaseSpec, Draws, EvaluationSpec, TimestepsSpec, TrainSpec
from lavie.training.denoiser import DenoiserPhase, compose, draw_sigmas, drop
from lavie.training.feed import feed


def batch(count: int, num_frames: int, first: float, word: str) -> Batch:
    numbers = torch.arange(first, first + count).view(count, 1, 1, 1, 1).expand(count, 3, num_frames, 2, 2)
    return Batch(numbers, [f"{word}{i}" for i in range(count)], [{}] * count)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_images_ride_behind_the_frames_of_their_clip_with_their_own_words() -> None:
    scene = compose({"clips": batch(2, 3, 0.0, "clip"), "images": batch(4, 1, 10.0, "image")})
    assert scene.num_images == 2
    assert scene.pixels[:, 0, :, 0, 0].tolist() == [[0, 0, 0, 10, 11], [1, 1, 1, 12, 13]]
    assert scene.captions == [["clip0", "image0", "image1"], ["clip1", "image2", "image3"]]


def test_images_alone_are_all_images() -> None:
    scene = compose({"images": batch(2, 1, 0.0, "image")})
    assert (scene.num_images, scene.pixels.shape[2]) == (1, 1)
    assert scene.captions == [["", "image0"], ["", "image1"]]


def test_clips_alone_have_no_images() -> None:
    scene = compose({"clips": batch(2, 3, 0.0, "clip")})
    assert scene.num_images == 0
    assert scene.captions == [["clip0"], ["clip1"]]


def test_captions_are_dropped_as_often_as_asked() -> None:
    captions = [["a", "b"]] * 2000
    kept = [caption for each in drop(captions, 0.25, generator()) for caption in each]
    assert kept.count("") == pytest.approx(1000, abs=100)
    assert drop(captions, 0.0, generator()) == captions
    assert drop(captions, 1.0, generator()) == [["", ""]] * 2000


def test_flow_times_follow_the_shift() -> None:
    schedule = FlowScheduleSpec().build()
    plain = draw_sigmas(TimestepsSpec(), schedule, 1000, generator())
    shifted = draw_sigmas(TimestepsSpec(shift=4.0), schedule, 1000, generator())
    inside = plain < 1000
    assert torch.allclose(shifted[inside], 4 * plain[inside], rtol=1e-6)


def test_flow_times_are_logit_normal_mixed_with_uniform_ones() -> None:
    schedule = FlowScheduleSpec().build()
    normal = draw_sigmas(TimestepsSpec(logit_mean=0.5, uniform_fraction=0.0), schedule, 20_000, generator()).log()
    assert float(normal.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(normal.std()) == pytest.approx(1.0, abs=0.03)
    even = draw_sigmas(TimestepsSpec(uniform_fraction=1.0), schedule, 20_000, generator())
    time = even / (1 + even)
    assert [float(time.quantile(q)) for q in (0.1, 0.5, 0.9)] == pytest.approx([0.1, 0.5, 0.9], abs=0.02)


def test_flow_times_stay_where_sigma_is_finite() -> None:
    sigmas = draw_sigmas(TimestepsSpec(logit_std=10.0, shift=1000.0), FlowScheduleSpec().build(), 1000, generator())
    assert bool(sigmas.isfinite().all())
    assert float(sigmas.min()) > 0


def test_other_schedules_use_the_entries_of_their_table() -> None:
    schedule = LinearScheduleSpec(num_train_timesteps=50, beta_end=0.2).build()
    sigmas = draw_sigmas(TimestepsSpec(), schedule, 500, generator())
    assert set(sigmas.tolist()) == set(schedule.sigmas.tolist())


def test_a_phase_without_data_is_refused(registry: Registry) -> None:
    with pytest.raises(SpecError, match="images and clips are both missing"):
        registry.load(DenoiserPhaseSpec, {"name": "nothing", "num_steps": 1})


def phase_of(recipe: TrainSpec, index: int, **changes: Any) -> DenoiserPhase:
    stage = recipe.build().stage
    phase = recipe.phases[index].model_copy(update=changes).build(stage)
    assert isinstance(phase, DenoiserPhase)
    return phase


def losses(phase: DenoiserPhase, step: int = 0) -> dict[str, Tensor]:
    sources = phase.sources()
    batches = next(feed(sources, seed=0, phase="p", first_step=step, num_steps=step + 1, num_workers=0))
    return phase.losses(batches, Draws(0, "p", step))


def test_the_loss_is_the_video_loss_and_the_weighted_image_loss(recipe: TrainSpec) -> None:
    values = losses(phase_of(recipe, 2, image_loss_weight=0.25))
    assert torch.allclose(values["loss"], values["video_loss"] + 0.25 * values["image_loss"])


def test_an_untrained_network_loses_about_the_power_of_noise_and_latent(recipe: TrainSpec) -> None:
    phase = phase_of(recipe, 2)
    torch.nn.init.zeros_(phase.stage.denoiser.conv_out.weight)  # type: ignore[union-attr, arg-type]
    torch.nn.init.zeros_(phase.stage.denoiser.conv_out.bias)  # type: ignore[union-attr, arg-type]
    batches = next(feed(phase.sources(), seed=0, phase="p", first_step=0, num_steps=1, num_workers=0))
    with torch.no_grad():
        latent = phase.stage.autoencoder.encode(compose(batches).pixels)
    noise = torch.randn(latent.shape, generator=Draws(0, "p", 0).generator("noise"))
    expected = (noise - latent).square()[:, :, :4].mean()
    assert float(losses(phase)["video_loss"].detach()) == pytest.approx(float(expected), rel=1e-4)


def test_the_same_step_draws_the_same_and_another_step_other_noise(recipe: TrainSpec) -> None:
    phase = phase_of(recipe, 2)
    assert torch.equal(losses(phase)["loss"], losses(phase)["loss"])
    assert not torch.equal(losses(phase)["loss"], losses(phase, step=1)["loss"])


def test_the_text_encoder_learns_only_if_told_to(recipe: TrainSpec) -> None:
    for trains in (True, False):
        phase = phase_of(recipe, 1, train_text_encoder=trains)
        assert set(phase.trained()) == {"denoiser", *(["text_encoder"] if trains else [])}
        losses(phase)["loss"].backward()  # type: ignore[no-untyped-call]
        grads = [parameter.grad is not None for parameter in phase.stage.text_encoder.parameters()]
        assert any(grads) == trains


class SeenSpec(MetricSpec):
    """Counts what it is shown."""

    type: Literal["seen"] = "seen"

    def build(self) -> "Seen":
        return Seen()


class Seen(Metric):
    def __init__(self) -> None:
        self.frames = 0.0
        self.labels = 0.0

    def update(self, video: Tensor, labels: Any) -> None:
        self.frames += video.shape[0] * video.shape[2]
        self.labels += sum("colour" in each for each in labels)

    def compute(self) -> dict[str, float]:
        return {"frames": self.frames, "labels": self.labels}


@pytest.mark.parametrize(("index", "frames"), [(1, 3.0), (2, 12.0)])
def test_a_look_makes_clips_as_long_as_the_data_and_measures_them(
    recipe: TrainSpec, tmp_path: Path, index: int, frames: float
) -> None:
    data = ShapesSpec(num_frames=int(frames) // 3, height=16, width=16, split="seen")
    evaluation = EvaluationSpec(num_clips=3, data=data, metric=SeenSpec())
    phase = phase_of(recipe, index, evaluation=evaluation)
    before: Mapping[str, Tensor] = {name: each.clone() for name, each in phase.stage.state_dict().items()}
    assert phase.look(phase.trained(), tmp_path / "look.png") == {"frames": frames, "labels": 3.0}
    assert (tmp_path / "look.png").stat().st_size > 100
    assert all(torch.equal(value, before[name]) for name, value in phase.stage.state_dict().items())
