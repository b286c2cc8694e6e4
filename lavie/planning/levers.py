"""What can be given up for memory, in the order in which it is: first what changes nothing but time."""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import torch

from lavie.planning.dry_run import Setting
from lavie.registry import Registry
from lavie.spec import dump
from lavie.specfile import change_spec
from lavie.stages import LatentDiffusionSpec, StageSpec
from lavie.stages.coverage import AtOnceSpec
from lavie.stages.windows import WindowsSpec

CHUNKS = (16, 4, 1)
"""Frames that an autoencoder works on at a time."""
FEATURES = (256, 64)
"""Sides of the rectangles of features that an autoencoder works on."""
FEWEST_FRAMES = 8
"""No window is shorter: what moves would not be seen to."""
SMALLEST_TILE = 32
"""No tile of a latent is smaller: what is shown would not be seen."""

Lever = Callable[[Setting, Collection[str], Registry], Iterator[Setting]]
"""`(setting, names of what needs too much) -> settings`, each needing less than the one before."""


def fewer_frames_decoded(setting: Setting, crowded: Collection[str], registry: Registry) -> Iterator[Setting]:
    """Let autoencoders work on fewer frames at a time: the same numbers."""
    for chunk in CHUNKS:
        if changed := _autoencoders(setting, "decode_chunk", chunk, registry):
            yield changed


def in_turn(setting: Setting, crowded: Collection[str], registry: Registry) -> Iterator[Setting]:
    """Load networks when they go to work and release them afterwards: the same numbers, and files read every time."""
    if not setting.in_turn:
        yield replace(setting, in_turn=True)


def tiles_of_features(setting: Setting, crowded: Collection[str], registry: Registry) -> Iterator[Setting]:
    """Let autoencoders work on rectangles: the same numbers up to rounding, and some of them computed twice."""
    shape = setting.spec.shape()
    for side in FEATURES:
        if side >= max(shape.height, shape.width):
            continue
        if changed := _autoencoders(setting, "tile", side, registry):
            yield changed


def half_precision(setting: Setting, crowded: Collection[str], registry: Registry) -> Iterator[Setting]:
    """Compute in bfloat16: numbers move by about a hundredth."""
    if setting.dtype == torch.float32:
        yield replace(setting, dtype=torch.bfloat16)


def windows_of_frames(setting: Setting, crowded: Collection[str], registry: Registry) -> Iterator[Setting]:
    """Show crowded networks half as many frames at a time, and half again: another video, of the same noise."""
    while windows := _windows(setting, crowded):
        changes = {
            name: window.model_copy(update={"num_frames": half, "overlap": min(window.overlap, half // 4)})
            for name, window in windows.items()
            if (half := window.num_frames // 2) >= FEWEST_FRAMES
        }
        if not changes:
            return
        setting = _with_windows(setting, changes, registry)
        yield setting


def tiles_of_latents(setting: Setting, crowded: Collection[str], registry: Registry) -> Iterator[Setting]:
    """Show crowded networks a part of every frame at a time: another video, and what is far apart may not agree."""
    while windows := _windows(setting, crowded):
        changes = {
            name: window.model_copy(update={"tile": half, "tile_overlap": half // 4})
            for name, window in windows.items()
            if (half := _half_tile(setting.spec, name, window)) >= SMALLEST_TILE
        }
        if not changes:
            return
        setting = _with_windows(setting, changes, registry)
        yield setting


LEVERS: tuple[Lever, ...] = (
    fewer_frames_decoded,
    in_turn,
    tiles_of_features,
    half_precision,
    windows_of_frames,
    tiles_of_latents,
)
"""In the order in which they are pulled."""


def _autoencoders(setting: Setting, field: str, most: int, registry: Registry) -> Setting | None:
    """Lower a number of all autoencoders that have it, so that equal ones stay equal; None if none is above."""
    changes = {}
    for name, part in setting.spec.parts().items():
        autoencoder = part.autoencoder if isinstance(part, LatentDiffusionSpec) else None
        if autoencoder is not None and field in type(autoencoder).model_fields:
            value = getattr(autoencoder, field)
            if value is None or value > most:
                changes[_path(name, f"autoencoder.{field}")] = str(most)
    return _changed(setting, changes, registry) if changes else None


def _windows(setting: Setting, crowded: Collection[str]) -> dict[str, WindowsSpec]:
    """Return the windows in which crowded stages see a video, for those that can do with others."""
    found, shape = {}, None
    for name, part in setting.spec.parts().items():
        shape = part.shape(shape)
        if name in crowded and isinstance(part, LatentDiffusionSpec):
            if isinstance(part.coverage, WindowsSpec):
                longest = min(part.coverage.num_frames, shape.num_frames)
                found[name] = part.coverage.model_copy(update={"num_frames": longest})
            elif isinstance(part.coverage, AtOnceSpec):
                found[name] = WindowsSpec(num_frames=shape.num_frames, overlap=shape.num_frames // 4)
    return found


def _half_tile(spec: StageSpec, name: str, window: WindowsSpec) -> int:
    shape = None
    for each, part in spec.parts().items():
        shape = part.shape(shape)
        if each == name and isinstance(part, LatentDiffusionSpec):
            with torch.device("meta"):
                factor = part.autoencoder.build().factor
            return (window.tile or max(shape.height, shape.width) // factor) // 16 * 8
    raise AssertionError(f"no stage {name}")


def _with_windows(setting: Setting, windows: dict[str, WindowsSpec], registry: Registry) -> Setting:
    changes = {_path(name, "coverage"): json.dumps(dump(window)) for name, window in windows.items()}
    return _changed(setting, changes, registry)


def _changed(setting: Setting, changes: dict[str, str], registry: Registry) -> Setting:
    spec = change_spec(setting.spec, [f"{path}={value}" for path, value in changes.items()], registry)
    assert isinstance(spec, StageSpec), "an override keeps the kind"
    kept = tuple(each for each in setting.overrides if each.partition("=")[0] not in changes)
    return replace(setting, spec=spec, overrides=(*kept, *(f"{path}={value}" for path, value in changes.items())))


def _path(part: str, path: str) -> str:
    return f"{part}.{path}" if part else path


__all__ = ["CHUNKS", "FEATURES", "LEVERS", "Lever"]
