from itertools import pairwise

import pytest
import torch

from lavie.data.base import Clip, Dataset
from lavie.training.feed import feed, stack
from lavie.training.phase import Batch, Source


class Numbers(Dataset):
    """Clips that show their own number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def clip(self, index: int) -> Clip:
        assert 0 <= index < self.count
        return Clip(torch.full((3, 1, 2, 2), float(index)), str(index), 8.0, {"number": str(index)})


def captions(first_step: int, num_steps: int, *, seed: int = 0, num_workers: int = 0) -> list[tuple[str, ...]]:
    sources = {"a": Source(Numbers(1000), 3), "b": Source(Numbers(7), 2)}
    steps = feed(sources, seed=seed, phase="p", first_step=first_step, num_steps=num_steps, num_workers=num_workers)
    return [(*batch["a"].captions, *batch["b"].captions) for batch in steps]


def test_any_step_can_be_had_without_those_before_it() -> None:
    whole = captions(0, 9)
    assert len(whole) == 9
    for first in range(9):
        assert captions(first, 9) == whole[first:]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_workers_change_nothing() -> None:
    assert captions(2, 6, num_workers=2) == captions(2, 6)


def test_clips_come_in_order_and_round_and_round() -> None:
    rows = captions(0, 40)
    numbers = [int(number) for row in rows for number in row[:3]]
    assert [(later - sooner) % 1000 for sooner, later in pairwise(numbers)] == [1] * 119
    assert {number for row in rows for number in row[3:]} == set(map(str, range(7)))


def test_another_seed_starts_elsewhere() -> None:
    assert captions(0, 1) != captions(0, 1, seed=1)


def test_clips_of_different_shapes_do_not_stack() -> None:
    clips = [Numbers(2).clip(0), Clip(torch.zeros(3, 1, 4, 4), "", 8.0)]
    with pytest.raises(RuntimeError, match="stack"):
        stack(clips)
    assert isinstance(stack(clips[:1]), Batch)
