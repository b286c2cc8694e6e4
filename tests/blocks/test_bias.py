"""Relative biases along frames."""

import math

import pytest
import torch

from lavie.blocks.base import Site
from lavie.blocks.bias import NoBiasSpec, RelativeBiasSpec, relative_buckets

SITE = Site(channels=32, num_heads=2)


def bucket(query: int, key: int, num_buckets: int, max_distance: int) -> int:
    """The definition, one pair at a time."""
    side, distance = num_buckets // 2, abs(query - key)
    offset, exact = (side if key > query else 0), side // 2
    if distance < exact:
        return offset + distance
    far = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (side - exact))
    return offset + min(far, side - 1)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 32), (32, 128), (8, 10)])
def test_buckets_follow_the_definition(num_buckets, max_distance):
    found = relative_buckets(40, num_buckets=num_buckets, max_distance=max_distance)
    expected = [[bucket(i, j, num_buckets, max_distance) for j in range(40)] for i in range(40)]
    assert found.tolist() == expected


def test_near_frames_have_a_bucket_each_and_far_ones_share():
    row = relative_buckets(61, num_buckets=32, max_distance=32)[:, 0].tolist()
    assert row[:9] == list(range(9))
    assert row == sorted(row)
    assert set(row[32:]) == {15}


def test_later_keys_take_the_upper_half():
    buckets = relative_buckets(20, num_buckets=32, max_distance=32)
    above = buckets.triu(1)
    assert torch.equal(above, (buckets.tril(-1).T + 16).triu(1))


def test_the_bias_of_a_pair_is_the_entry_of_its_bucket_for_each_head():
    bias = RelativeBiasSpec(num_buckets=8, max_distance=6).build(SITE)
    found = bias(5)
    buckets = relative_buckets(5, num_buckets=8, max_distance=6)
    for head in range(2):
        assert torch.equal(found[head], bias.table.weight[:, head][buckets])


def test_a_distance_that_the_exact_buckets_cover_is_refused():
    with pytest.raises(ValueError, match=r"max_distance 8 must exceed num_buckets / 4 = 8"):
        RelativeBiasSpec(num_buckets=32, max_distance=8).build(SITE)


def test_none_builds_nothing():
    assert NoBiasSpec().build(SITE) is None
