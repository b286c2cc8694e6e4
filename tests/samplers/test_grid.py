"""The noise levels that solvers of the probability flow step on."""

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavie.errors import SpecError
from lavie.samplers import EulerSpec, FlowScheduleSpec, LinearScheduleSpec
from lavie.samplers.grid import SigmaSpacing
from lavie.samplers.schedule import Schedule

VP, FLOW = LinearScheduleSpec().build(), FlowScheduleSpec(shift=3.0).build()
each_spacing = st.sampled_from([None, *get_args(SigmaSpacing)])


@settings(max_examples=40)
@given(st.sampled_from([VP, FLOW]), each_spacing, st.integers(1, 300))
def test_grids_fall_inside_the_table_and_end_at_zero(
    schedule: Schedule, spacing: SigmaSpacing | None, count: int
) -> None:
    spec = EulerSpec(num_inference_steps=count, spacing=spacing)
    for grid in (spec.full_grid(schedule), spec.inner_grid(schedule)):
        assert len(grid) == count + 1
        assert grid == sorted(set(grid), reverse=True)
        assert grid[0] <= schedule.sigmas[-1] * (1 + 1e-12)
        assert grid[-1] == 0


@pytest.mark.parametrize("spacing", ["linspace", "leading"])
def test_inner_grids_leave_out_the_first_timestep(spacing: SigmaSpacing) -> None:
    spec = EulerSpec(num_inference_steps=9, spacing=spacing)
    assert spec.full_grid(VP)[-2] == VP.sigmas[0]
    assert VP.timestep(spec.inner_grid(VP)[-2]) >= 100


def test_karras_spacing_is_even_in_the_seventh_root() -> None:
    grid = EulerSpec(num_inference_steps=5, spacing="karras").full_grid(VP)[:-1]
    roots = [sigma ** (1 / 7) for sigma in grid]
    assert [roots[0] - root for root in roots] == pytest.approx([i * (roots[0] - roots[-1]) / 4 for i in range(5)])
    assert grid[0] == pytest.approx(VP.sigmas[-1].item())
    assert grid[-1] == pytest.approx(VP.sigmas[0].item())


def test_exponential_spacing_has_equal_ratios() -> None:
    grid = EulerSpec(num_inference_steps=5, spacing="exponential").full_grid(VP)[:-1]
    ratios = [low / high for high, low in pairwise(grid)]
    assert ratios == pytest.approx([ratios[0]] * 4)


def test_too_many_steps_for_an_inner_grid_are_refused() -> None:
    with pytest.raises(SpecError, match="10 steps do not fit into 9 timesteps"):
        EulerSpec(num_inference_steps=10).inner_grid(LinearScheduleSpec(num_train_timesteps=10).build())
