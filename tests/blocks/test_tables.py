"""Constants by the number of frames."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lavie.blocks.base import Site
from lavie.blocks.bias import RelativeBiasSpec
from lavie.blocks.position import RotarySpec
from lavie.blocks.tables import FrameTable

CPU = torch.device("cpu")


class Counted:
    """Counts how often the table is computed."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, num_frames: int) -> Tensor:
        self.times += 1
        return torch.arange(num_frames) ** 2


def test_each_length_is_computed_once():
    counted = Counted()
    table = FrameTable(counted)
    for num_frames in (4, 4, 7, 4, 7):
        assert torch.equal(table(num_frames, CPU), torch.arange(num_frames) ** 2)
    assert counted.times == 2


def test_a_copy_of_the_owner_has_tables_of_its_own():
    table = FrameTable(Counted())
    kept = table(4, CPU)
    twin = copy.deepcopy(table)
    assert torch.equal(twin(4, CPU), kept)
    assert twin(4, CPU) is not kept


def test_a_table_made_while_sampling_serves_training():
    bias = RelativeBiasSpec(num_buckets=8, max_distance=6).build(Site(channels=32, num_heads=2))
    with torch.inference_mode():
        bias(5)
    bias(5).sum().backward()
    assert bias.table.weight.grad.sum() == 2 * 5 * 5


@pytest.mark.parametrize("context", [lambda: torch.device("meta"), FakeTensorMode], ids=["meta", "fake"])
def test_a_table_asked_for_where_nothing_has_numbers_has_them_afterwards(context: Callable[[], object]):
    table = FrameTable(Counted())
    with context():
        table(4, CPU)
    assert table(4, CPU).tolist() == [0, 1, 4, 9]
    assert table(4, torch.device("meta")).is_meta


def test_what_compilers_are_given_is_the_same(monkeypatch):
    site, x = Site(channels=32, num_heads=2), torch.randn(3, 2, 5, 16)
    rope, bias = RotarySpec(dim=8).build(site), RelativeBiasSpec().build(site)
    found, table = rope(x), bias(5)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rope(x), found)
    assert torch.equal(bias(5), table)
