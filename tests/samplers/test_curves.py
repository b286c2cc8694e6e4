"""Schedules given by how the signal falls."""

import math

import pytest

from lavie.samplers import CosineScheduleSpec, SigmoidScheduleSpec


def test_sigmoid_signal_is_a_stretch_of_the_logistic_curve() -> None:
    """arXiv 2212.11972, §2: (σ(end/τ) - σ((start + t·(end - start))/τ)) / (σ(end/τ) - σ(start/τ))."""

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    spec = SigmoidScheduleSpec(start=-2.0, end=4.0, temperature=1.5)
    found = spec.build().alphas_cumprod
    for t in (0.1, 0.5, 0.9):
        place = logistic((-2 + t * 6) / 1.5)
        expected = (logistic(4 / 1.5) - place) / (logistic(4 / 1.5) - logistic(-2 / 1.5))
        assert found[round(1000 * t) - 1].item() == pytest.approx(expected)


def test_a_sigmoid_between_opposite_ends_is_half_gone_in_the_middle() -> None:
    assert SigmoidScheduleSpec().build().alphas_cumprod[499].item() == pytest.approx(0.5)


def test_a_sharper_sigmoid_falls_later_and_faster() -> None:
    soft, sharp = (SigmoidScheduleSpec(temperature=t).build().alphas_cumprod for t in (1.0, 0.4))
    assert sharp[249] > soft[249]
    assert sharp[749] < soft[749]


@pytest.mark.parametrize("spec", [CosineScheduleSpec, SigmoidScheduleSpec])
@pytest.mark.parametrize("count", [2, 10, 4000])
def test_any_number_of_timesteps_keeps_some_signal(
    spec: type[CosineScheduleSpec | SigmoidScheduleSpec], count: int
) -> None:
    alphas = spec(num_train_timesteps=count).build().alphas_cumprod
    assert 0 < alphas[-1] < alphas[0] < 1


def test_a_curve_too_flat_to_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="timestep 0 adds no noise that float64 can tell; take fewer"):
        SigmoidScheduleSpec(start=-10.0, end=0.5, temperature=0.1)
