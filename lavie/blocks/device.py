"""Where numbers are, for code whose steps depend on it: tensors without numbers can stand for those of a device."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_stood_for: str | None = None
"""What `standing_for` has set: for the whole process, since layers run in other threads."""


def device_type(x: Tensor) -> str:
    """Return the type of the device that a tensor is on, or stands for, as in `torch.device.type`."""
    return _stood_for if x.is_meta and _stood_for is not None else x.device.type


@contextmanager
def standing_for(device: str) -> Iterator[None]:
    """Within the context, take tensors on the meta device for those of a device of this type."""
    global _stood_for
    before, _stood_for = _stood_for, device
    try:
        yield
    finally:
        _stood_for = before
