"""Views between videos and what image kernels take."""

import pytest
import torch
from torch import Tensor

from lavie.blocks import layout


def video(batch: int, num_frames: int = 3) -> Tensor:
    shape = (batch, 4, num_frames, 5, 6)
    return torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)


WAYS = {
    "frames": (layout.fold_frames, lambda x: layout.unfold_frames(layout.fold_frames(x), 3)),
    "rows": (layout.stack_frames, lambda x: layout.unstack_frames(layout.stack_frames(x), 3)),
    "space": (layout.flatten_space, lambda x: layout.unflatten_space(layout.flatten_space(x), 5)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, 2])
def test_there_and_back_is_the_same_memory(way, batch):
    x = video(batch)
    there, back = WAYS[way]
    assert torch.equal(back(x), x)
    assert there(x).data_ptr() == back(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, 2])
def test_image_kernels_recognise_the_memory_order(way, batch):
    there, back = WAYS[way]
    assert there(video(batch)).is_contiguous(memory_format=torch.channels_last)
    assert back(video(batch)).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("batch", [1, 2])
def test_channels_are_joined_in_order_and_in_the_same_memory_order(batch):
    x, more = video(batch), video(batch)
    joined = layout.join_channels(x, more)
    assert torch.equal(joined, torch.cat((x, more), dim=1))
    assert joined.is_contiguous(memory_format=torch.channels_last_3d)


def test_rows_are_those_of_the_first_frame_first():
    x = video(1)
    assert torch.equal(layout.stack_frames(x)[:, :, :5], x[:, :, 0])
