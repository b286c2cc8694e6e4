"""FreeInit: what is kept between the passes, what is drawn anew, and the filter that tells them apart."""

import math

import pytest
import torch
from torch import Tensor

from lavie.samplers import DDIMSpec, DDPMSpec, EulerSpec, FlowScheduleSpec, FreeInitSpec, LinearScheduleSpec, Step
from lavie.samplers.free_init import FreeInit, LowPass

SCHEDULE = LinearScheduleSpec().build()
SHAPE = (2, 3, 6, 8, 8)
START = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def denoise(noisy: Tensor, sigma: float) -> Tensor:
    return noisy / (1 + sigma**2)


def noise(step: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)


def wave(frames: int = 0, rows: int = 0, columns: int = 0) -> Tensor:
    """Return a plane wave with so many periods along each axis of the test's shape."""
    f, h, w = SHAPE[2:]
    axes = [torch.arange(size, dtype=torch.float64) / size for size in (f, h, w)]
    places = torch.meshgrid(*axes, indexing="ij")
    phase = sum(periods * place for periods, place in zip((frames, rows, columns), places, strict=True))
    return torch.cos(2 * math.pi * phase).expand(SHAPE)


@pytest.mark.parametrize("kind", ["gaussian", "butterworth"])
@pytest.mark.parametrize(
    ("periods", "distance"), [((0, 0, 0), 0.0), ((1, 0, 0), 2 / 6 / 0.5), ((0, 1, 0), 1.0), ((3, 2, 2), 12**0.5)]
)
def test_a_wave_passes_by_its_distance_from_the_mean(kind: str, periods: tuple[int, int, int], distance: float) -> None:
    """Cutoffs of half and a quarter of the highest frequency: 8 rows have 4 periods at most, and 1 at the cutoff."""
    share = math.exp(-(distance**2) / 2) if kind == "gaussian" else 1 / (1 + distance**8)
    passed = LowPass(kind, spatial=0.25, temporal=0.5)(wave(*periods))
    torch.testing.assert_close(passed, share * wave(*periods), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 5, 4), (7, 3, 9)])
def test_any_size_keeps_its_mean(size: tuple[int, int, int]) -> None:
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    passed = LowPass("butterworth", 0.25, 0.25)(x)
    assert passed.shape == x.shape
    torch.testing.assert_close(passed.mean(dim=(2, 3, 4)), x.mean(dim=(2, 3, 4)))


def build(inner: DDIMSpec | EulerSpec | DDPMSpec, num_passes: int, **options: object) -> FreeInit:
    return FreeInitSpec(inner=inner, num_inference_steps=5, num_passes=num_passes, **options).build(SCHEDULE)


@pytest.mark.parametrize("inner", [DDIMSpec(), EulerSpec(), DDPMSpec()])
def test_the_first_pass_is_the_inner_sampler_draw_for_draw(inner: DDIMSpec | EulerSpec | DDPMSpec) -> None:
    alone = inner.model_copy(update={"num_inference_steps": 5}).build(SCHEDULE)
    expected = [step.noisy for step in alone.steps(denoise, START, noise)]
    found = [step.noisy for step in build(inner, 3).steps(denoise, START, noise)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=False))
    assert torch.equal(build(inner, 1).sample(denoise, START, noise), alone.sample(denoise, START, noise))


def test_steps_are_numbered_over_all_passes() -> None:
    sampler = build(DDIMSpec(), 3)
    steps = list(sampler.steps(denoise, START, noise))
    assert [(step.index, step.num_steps) for step in steps] == [(index, 15) for index in range(15)]
    assert [step.timestep for step in steps] == sampler.timesteps
    assert [step.sigma for step in steps] == 3 * sampler.sigmas[:-1].tolist()


@pytest.mark.parametrize("inner", [DDIMSpec(), EulerSpec()])
def test_a_pass_starts_from_what_was_slow_in_the_result_and_from_fresh_noise_where_it_is_fast(
    inner: DDIMSpec | EulerSpec,
) -> None:
    latent = 2.0 + wave(rows=1) + wave(frames=3, rows=4)
    sampler = build(inner, 2, filter="butterworth", spatial_cutoff=0.5, temporal_cutoff=0.5)
    starts: list[Tensor] = []

    def known(noisy: Tensor, sigma: float) -> Tensor:
        if sigma == sampler.sigmas[0]:
            starts.append(noisy)
        return latent

    sampler.sample(known, START, noise)
    first, second = starts
    sigma = sampler.sigmas[0].item()
    again, fresh = (
        sampler.inner.latent(last_of(sampler, latent)) + sigma * START,
        sampler.initial_scale * noise(5, SHAPE),
    )
    low = LowPass("butterworth", 0.5, 0.5)
    torch.testing.assert_close(first, sampler.initial_scale * START)
    torch.testing.assert_close(second, low(again) + fresh - low(fresh))


def last_of(sampler: FreeInit, latent: Tensor) -> Step:
    return list(sampler.inner.steps(lambda noisy, sigma: latent, START, noise))[-1]


def test_no_draw_is_used_twice() -> None:
    drawn: list[int] = []

    def count(step: int, shape: tuple[int, ...]) -> Tensor:
        drawn.append(step)
        return noise(step, shape)

    build(DDPMSpec(), 3).sample(denoise, START, count)
    assert drawn == [0, 1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]


def test_steps_of_a_pass_take_the_place_of_the_inner_number() -> None:
    assert FreeInitSpec(inner=DDIMSpec(num_inference_steps=7)).inner.num_inference_steps == 50
    assert FreeInitSpec(num_inference_steps=9).inner.num_inference_steps == 9


def test_it_does_not_run_itself() -> None:
    with pytest.raises(ValueError, match="free_init cannot run free_init; give it more num_passes"):
        FreeInitSpec(inner=FreeInitSpec())


def test_straight_paths_keep_the_slow_noise_of_the_first_pass() -> None:
    """Their grid starts from all noise, where nothing is left of the result but the noise that it is noised with."""
    spec = FreeInitSpec(inner=EulerSpec(), num_inference_steps=3, num_passes=2)
    sampler = spec.build(FlowScheduleSpec().build())
    starts: list[Tensor] = []

    def record(noisy: Tensor, sigma: float) -> Tensor:
        if sigma == sampler.sigmas[0]:
            starts.append(noisy / sampler.initial_scale)
        return denoise(noisy, sigma)

    sampler.sample(record, START, noise)
    low = LowPass("butterworth", 0.25, 0.25)
    torch.testing.assert_close(low(starts[1] - noise(3, SHAPE)), low(low(START - noise(3, SHAPE))), rtol=0, atol=1e-3)
