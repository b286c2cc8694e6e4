"""Schedules: the tables, the way between timestep and sigma, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lavie.samplers.curves import CosineScheduleSpec, SigmoidScheduleSpec
from lavie.samplers.schedule import (
    FlowScheduleSpec,
    LinearScheduleSpec,
    RectifiedFlow,
    ScaledLinearScheduleSpec,
    Schedule,
    ScheduleSpec,
)

SPECS: list[ScheduleSpec] = [
    LinearScheduleSpec(),
    ScaledLinearScheduleSpec(beta_start=0.00085, beta_end=0.012),
    LinearScheduleSpec(num_train_timesteps=10),
    CosineScheduleSpec(),
    SigmoidScheduleSpec(),
    SigmoidScheduleSpec(start=0.0, end=3.0, temperature=0.3),
    LinearScheduleSpec(terminal_sigma=1e8),
    FlowScheduleSpec(),
    FlowScheduleSpec(shift=3.0),
]
SCHEDULES = [spec.build() for spec in SPECS]
each_schedule = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.type}-{SPECS.index(spec)}")


@each_schedule
def test_sigmas_increase_and_stay_finite(spec: ScheduleSpec) -> None:
    schedule = spec.build()
    assert schedule.sigmas.dtype == torch.float64
    assert schedule.sigmas.isfinite().all()
    assert (schedule.sigmas.diff() > 0).all()
    assert len(schedule.sigmas) == schedule.num_train_timesteps


@each_schedule
def test_every_table_entry_has_the_timestep_that_the_network_is_told(spec: ScheduleSpec) -> None:
    schedule = spec.build()
    for sigma, timestep in zip(schedule.sigmas.tolist(), schedule.timesteps.tolist(), strict=True):
        assert schedule.timestep(sigma) == timestep
        assert 0 <= timestep < schedule.num_train_timesteps
        assert schedule.sigma(timestep) == pytest.approx(sigma, rel=1e-9)


@each_schedule
def test_positions_are_table_indices(spec: ScheduleSpec) -> None:
    schedule = spec.build()
    table = [schedule.at(float(index)) for index in range(schedule.num_train_timesteps)]
    assert torch.equal(torch.tensor(table, dtype=torch.float64), schedule.sigmas)


@given(st.sampled_from(SCHEDULES), st.floats(0, 1))
def test_timestep_inverts_sigma(schedule: Schedule, fraction: float) -> None:
    low, high = schedule.timesteps[0].item(), schedule.timesteps[-1].item()
    timestep = low + fraction * (high - low)
    assert schedule.timestep(schedule.sigma(timestep)) == pytest.approx(timestep, abs=1e-6)


@given(st.sampled_from(SCHEDULES), st.floats(0, 1e4))
def test_noise_to_signal_ratio_of_the_scales_is_sigma(schedule: Schedule, sigma: float) -> None:
    alpha, sigma_hat = schedule.scales(sigma)
    assert sigma_hat / alpha == pytest.approx(sigma)
    assert (
        alpha + sigma_hat if isinstance(schedule, RectifiedFlow) else math.hypot(alpha, sigma_hat)
    ) == pytest.approx(1)


@each_schedule
def test_scales_of_a_batch_are_those_of_its_numbers(spec: ScheduleSpec) -> None:
    schedule = spec.build()
    alphas, sigma_hats = schedule.scales(schedule.sigmas)
    single = torch.tensor([schedule.scales(sigma) for sigma in schedule.sigmas.tolist()], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([alphas, sigma_hats], dim=1), single, rtol=1e-14, atol=0)


@each_schedule
def test_paths_of_the_flow_have_the_slope_that_the_clock_promises(spec: ScheduleSpec) -> None:
    """For latents of N(0, 1) the path is √(1 + σ²) and the denoised latent is path / (1 + σ²)."""
    schedule, sigma, step = spec.build(), 0.7, 1e-6

    def path(sigma: float) -> tuple[float, float]:
        scale, time = schedule.clock(sigma)
        return scale * (1 + sigma**2) ** 0.5, time

    (low, time_low), (high, time_high) = path(sigma - step), path(sigma + step)
    here, time = path(sigma)
    slope = (here - (1 + sigma**2) ** -0.5) / time
    assert (high - low) / (time_high - time_low) == pytest.approx(slope)


def test_tables_are_on_the_cpu_even_inside_a_meta_device_context() -> None:
    with torch.device("meta"):
        schedules = [spec.build() for spec in SPECS]
    assert all(schedule.sigmas.device.type == "cpu" for schedule in schedules)


def test_timestep_of_a_sigma_outside_the_table_is_its_end() -> None:
    schedule = LinearScheduleSpec().build()
    assert schedule.timestep(0.0) == 0
    assert schedule.timestep(1e6) == 999


def test_shift_multiplies_the_sigmas_of_a_flow_schedule() -> None:
    plain, shifted = FlowScheduleSpec().build(), FlowScheduleSpec(shift=3.0).build()
    torch.testing.assert_close(shifted.sigmas, 3 * plain.sigmas)
    t = plain.timesteps / 1000
    torch.testing.assert_close(shifted.timesteps / 1000, 3 * t / (1 + 2 * t))


def test_a_flow_schedule_is_all_noise_at_its_end_and_all_latent_before_its_start() -> None:
    schedule = FlowScheduleSpec().build()
    assert schedule.scales(schedule.at(999.0))[0] == pytest.approx(1e-4)
    assert schedule.at(-1.0) == 0


@pytest.mark.parametrize("spec", [LinearScheduleSpec, ScaledLinearScheduleSpec])
def test_betas_that_bury_the_signal_are_refused(spec: type[LinearScheduleSpec]) -> None:
    with pytest.raises(ValueError, match=r"bury the signal .* times deep in noise.*lower beta_end"):
        spec(beta_end=0.9)


@pytest.mark.parametrize("field", [{"beta_start": 0.0}, {"beta_end": 1.0}, {"num_train_timesteps": 10**9}])
def test_absurd_numbers_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        LinearScheduleSpec(**field)


def test_cosine_signal_falls_as_a_squared_cosine() -> None:
    schedule = CosineScheduleSpec().build()
    expected = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert schedule.alphas_cumprod[499].item() == pytest.approx(expected)


def test_a_terminal_sigma_moves_the_end_and_keeps_the_start() -> None:
    plain, stretched = LinearScheduleSpec().build(), LinearScheduleSpec(terminal_sigma=1e8).build()
    assert stretched.sigmas[-1].item() == pytest.approx(1e8)
    assert stretched.sigmas[0].item() == pytest.approx(plain.sigmas[0].item())
    assert (stretched.sigmas[1:] > plain.sigmas[1:]).all()


def test_a_terminal_sigma_below_the_timestep_before_is_refused() -> None:
    with pytest.raises(ValueError, match=r"terminal_sigma must be above 15406"):
        LinearScheduleSpec(terminal_sigma=4096.0)
