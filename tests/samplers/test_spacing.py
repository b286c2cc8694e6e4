"""Where the steps of a solver start."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lavie.errors import SpecError
from lavie.samplers.spacing import Spacing, entries, positions

SPACINGS: list[Spacing] = ["leading", "trailing", "linspace", "respaced", "even"]


@given(st.sampled_from(SPACINGS), st.integers(2, 2000), st.integers(1, 200))
def test_positions_decrease_inside_the_table(spacing: Spacing, total: int, count: int) -> None:
    assume(count <= total)
    grid = positions(spacing, total, count)
    assert len(grid) == count
    assert all(high > low for high, low in pairwise(grid))
    assert 0 <= grid[0] <= total - 1
    assert grid[-1] > -1


@given(st.sampled_from(["trailing", "linspace", "respaced", "even"]), st.integers(2, 2000), st.integers(1, 200))
def test_all_but_leading_spacing_start_at_the_last_timestep(spacing: Spacing, total: int, count: int) -> None:
    assume(count <= total)
    assert positions(spacing, total, count)[0] == total - 1


def test_the_spacings_of_four_steps_over_ten_timesteps() -> None:
    assert positions("leading", 10, 4) == [6, 4, 2, 0]
    assert positions("leading", 10, 4, offset=1) == [7, 5, 3, 1]
    assert positions("trailing", 10, 4) == [9, 7, 4, 1]
    assert positions("linspace", 10, 4) == [9, 6, 3, 0]
    assert positions("even", 10, 4) == [9, 6.5, 4, 1.5]


def test_halves_round_to_even_as_numpy_does() -> None:
    assert entries("linspace", 10, 3) == [9, 4, 0]
    assert entries("linspace", 1000, 5) == [999, 749, 500, 250, 0]


def test_respaced_differs_from_linspace_in_halves_only() -> None:
    """20 · 49.95 is 499.5 when multiplied, and a little less when added up."""
    one, other = entries("linspace", 1000, 21), entries("respaced", 1000, 21)
    assert [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]] == [(500, 499)]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "respaced"])
def test_more_steps_than_timesteps_are_refused(spacing: Spacing) -> None:
    with pytest.raises(SpecError, match="num_inference_steps: 11 steps do not fit into 10 timesteps"):
        entries(spacing, 10, 11)


def test_an_offset_beyond_the_table_is_refused() -> None:
    with pytest.raises(SpecError, match="10 steps with offset 1 begin at timestep 10, beyond 9"):
        positions("leading", 10, 10, offset=1)
