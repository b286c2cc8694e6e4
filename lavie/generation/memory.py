"""Memory: what certainly does not fit is refused before anything runs, and what turns out not to is told plainly."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lavie.errors import Fault, OutOfMemoryError, SpecError
from lavie.spec import Spec
from lavie.stages import StageSpec, VideoShape
from lavie.stages.latent_diffusion import LatentDiffusionSpec
from lavie.stages.lazy_video import at_once

_FLOAT = 4
"""Bytes of the numbers that latents and pixels are made of, whatever the networks compute in."""
_SIGNS = ("allocate memory", "bad_alloc", "ALLOC_FAILED", "out of memory", "not enough memory")
"""What a RuntimeError for want of memory says, as torch and its libraries write it."""


def check_memory(spec: StageSpec, given: VideoShape | None = None, scale: int = 1) -> None:
    """Refuse a video for which latents, and the few frames that are pixels at a time, exceed this machine's memory.

    Only what is held for certain is counted: activations depend on the network. `given` is what a video that goes in
    has; `scale` the side of the square that each pixel is written as.

    Raises:
        SpecError: with both numbers of bytes.
    """
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    held = 0 if given is None else given.num_frames * given.height * given.width * 3 * _FLOAT
    shape, first = given, next(iter(spec.parts()))
    for name, part in spec.parts().items():
        shape = part.shape(shape)
        latent = _latent_bytes(part, shape)
        held += latent  # a later stage begins from it, so it stays
        frames = min(at_once(shape.height, shape.width), shape.num_frames)
        pixels = shape.height * shape.width * 3 * (frames * (2 * _FLOAT + 1) + scale**2)
        needed = held + max(2 * latent, pixels)  # while it is sampled there is a prediction and the step's outcome
        if present is not None and needed > present:
            size = f"{shape.num_frames} frames of {shape.height}×{shape.width}"
            who = f" in the stage {name}" if name else ""
            reason = f"{size}{who} need more than {needed / 2**30:,.0f} GiB for latents and a few frames of pixels"
            path = f"{first}.video" if first else "video"
            raise SpecError([Fault(path, f"{reason}; this machine has {present / 2**30:,.0f} GiB of memory")])


def _latent_bytes(part: StageSpec, shape: VideoShape) -> int:
    if not isinstance(part, LatentDiffusionSpec):
        return 0
    with torch.device("meta"):
        autoencoder = part.autoencoder.build()
    height, width = shape.height // autoencoder.factor, shape.width // autoencoder.factor
    return shape.num_frames * autoencoder.latent_channels * height * width * _FLOAT


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory could not be had, of the machine or of its accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextmanager
def answering(device: str, doing: str, remedy: str) -> Iterator[None]:
    """Turn every error for want of memory into one that says in a line what was being done, and what helps.

    Raises:
        OutOfMemoryError: in its place.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory on {device} while {doing}: {remedy}") from error


def sampling_remedy(spec: StageSpec, stage: str) -> str:
    """Say what makes the stage of this name need less memory while its latents are sampled."""
    at = f"{stage}." if stage in spec.parts() else ""
    less = "ask for fewer frames or a smaller size, let --max-memory find settings"
    return f"{less}, or show the network less at once, which makes another video: --set {at}coverage=windows"


def decoding_remedy(spec: StageSpec) -> str:
    """Say what makes the last stage need less memory while its latents are decoded."""
    name, part = list(spec.parts().items())[-1]
    autoencoder = getattr(part, "autoencoder", None)
    remedy = "ask for a smaller size"
    if isinstance(autoencoder, Spec) and "tile" in type(autoencoder).model_fields:
        at = f"{name}." if name else ""
        remedy += f", or decode frames in tiles: --set {at}autoencoder.tile=256"
    return remedy


LOADING_REMEDY = "--dtype bfloat16 halves what the networks need, or choose a smaller spec"

__all__ = ["LOADING_REMEDY", "answering", "check_memory", "decoding_remedy", "is_out_of_memory", "sampling_remedy"]
