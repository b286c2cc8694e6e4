"""Published weights to a folder of lavie, whole parts or nothing, with a word on every tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lavie.blocks.unet import UNetSpec
from lavie.errors import WeightsError
from lavie.spec import Spec, dump
from lavie.weights.configs import check_config
from lavie.weights.files import WEIGHTS_FILE, check_names, write_folder
from lavie.weights.inflate import CONV_IN, fresh_names, image_shapes, inflate
from lavie.weights.layout import Layout, Reading
from lavie.weights.layouts import layout_for
from lavie.weights.shapes import shapes_of
from lavie.weights.source import CONSTANTS_FILE, OWN, PARTS, Contents, Holding, Part


@dataclass(frozen=True)
class Converted:
    """One part, ready to be written, and where each of its tensors came from."""

    holding: Holding
    state: Mapping[str, Tensor]
    """All tensors of the network under our names."""
    reading: Reading
    fresh: tuple[str, ...] = ()
    """Tensors of ours that the file does not have and that start anew."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What the folder remembers for the way back."""


def choose(contents: Sequence[Contents], chosen: Mapping[Part, Contents]) -> dict[Part, Holding]:
    """Settle which source gives each part: the one chosen for it, or the only one that has it.

    Raises:
        WeightsError: if two sources have it, or the chosen one does not.
    """
    parts: dict[Part, Holding] = {}
    for part in PARTS:
        sources = [chosen[part]] if part in chosen else contents
        found = [each for source in sources for each in source.holdings if each.part == part]
        if part in chosen and not found:
            has = ", ".join(each.part for each in chosen[part].holdings)
            raise WeightsError(f"{chosen[part].path} holds no {part}; it holds {has}")
        if len(found) > 1:
            paths = " and ".join(str(each.path) for each in found)
            raise WeightsError(f"{part}: {paths} both hold one. Choose with --part {part}=PATH")
        if found:
            parts[part] = found[0]
    return parts


def convert(parts: Mapping[Part, Holding], spec: Spec, *, image: bool = False, seed: int = 0) -> list[Converted]:
    """Fit every part to the network that the stage's spec has for it; with `image`, the denoiser is inflated.

    Raises:
        WeightsError: listing what does not fit, of all parts.
    """
    converted, faults = [], []
    for part, holding in parts.items():
        try:
            converted.append(_convert(holding, getattr(spec, part), image=image and part == "denoiser", seed=seed))
        except WeightsError as error:
            faults.append(str(error) if str(error).startswith(str(holding.path)) else f"{holding.path}: {error}")
    if faults:
        raise WeightsError("\n".join(faults))
    return converted


def likeness(holding: Holding, spec: Spec) -> float:
    """Return which part of a network's tensors a file has by name and shape, in [0, 1]."""
    wanted = shapes_of(spec)
    try:
        state = layout_for(holding.part, holding.layout, spec).read(holding.tensors).state
    except WeightsError:
        return 0.0
    return sum(tuple(tensor.shape) == wanted.get(key) for key, tensor in state.items()) / max(len(wanted), 1)


def write(
    converted: Sequence[Converted],
    spec: Spec,
    folder: Path,
    *,
    sources: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the parts as one folder of weights, with what the way back needs.

    `sources` names the files that they came from, with the sha256 of each.

    Raises:
        FileExistsError: if `folder` exists and `overwrite` is false.
    """
    by_part = {each.holding.part: each for each in converted}
    tensors = {f"{part}.{key}": each.state[key] for part, each in by_part.items() for key in each.state}
    constants = {
        f"{part}.{key}": tensor
        for part, each in by_part.items()
        for key, tensor in (each.holding.constants | each.reading.constants).items()
    }
    files = {WEIGHTS_FILE: tensors} | ({CONSTANTS_FILE: constants} if constants else {})
    origin = {part: dict(each.origin) for part, each in by_part.items()}
    manifest = {"spec": dump(spec), "modules": [*by_part], "origin": origin, "sources": dict(sources or {})}
    write_folder(folder, files, manifest, overwrite=overwrite)


def _convert(holding: Holding, spec: Spec, *, image: bool, seed: int) -> Converted:
    wanted = shapes_of(spec)
    if holding.layout == OWN:
        reading = Reading(dict(holding.tensors), {key: (key,) for key in holding.tensors})
        check_names(holding.path, {key: tuple(each.shape) for key, each in reading.state.items()}, wanted)
        return Converted(holding, reading.state, reading, origin=holding.origin)
    if holding.config is not None:
        check_config(holding.part, holding.config, spec)
    layout = layout_for(holding.part, holding.layout, spec)
    reading = layout.read(holding.tensors)
    if strange := [key for key, tensor in reading.state.items() if not tensor.is_floating_point()]:
        raise WeightsError(f"{layout.name_in_file(strange[0])} holds whole numbers")
    origin = {
        "file": holding.path.name,
        "layout": layout.name,
        "container": holding.container,
        "prefix": holding.prefix,
        "constants": [*reading.constants],
        "inflated": image,
    }
    fresh = fresh_names(spec, reading.state) if isinstance(spec, UNetSpec) else []
    if image:
        if not fresh or not isinstance(spec, UNetSpec):
            raise WeightsError("it is no image network to be inflated, or the spec has no temporal parts")
        return Converted(holding, _inflated(holding, layout, reading, spec, seed), reading, tuple(fresh), origin)
    if fresh and len(reading.state) == len(wanted) - len(fresh):
        parts = f"its {len(reading.state)} tensors are those of the image network, and the {len(fresh)} of the temporal"
        raise WeightsError(f"{parts} parts are missing. With --inflate these start fresh, adding nothing at first")
    _check_fit(holding, layout, reading, wanted)
    return Converted(holding, reading.state, reading, origin=origin)


def _inflated(holding: Holding, layout: Layout, reading: Reading, spec: UNetSpec, seed: int) -> dict[str, Tensor]:
    wanted, kernel = image_shapes(spec), reading.state.get(CONV_IN)
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == spec.in_channels:
        wanted[CONV_IN] = (wanted[CONV_IN][0], spec.in_channels, *wanted[CONV_IN][2:])
    _check_fit(holding, layout, reading, wanted)
    return inflate(spec, reading.state, seed)


def _check_fit(holding: Holding, layout: Layout, reading: Reading, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names and shapes, as the file spells them."""
    if not reading.unknown and {key: tuple(tensor.shape) for key, tensor in reading.state.items()} == wanted:
        return
    found = {layout.name_in_file(key): tuple(tensor.shape) for key, tensor in reading.state.items()}
    found |= {key: tuple(tensor.shape) for key, tensor in reading.unknown.items()}
    check_names(holding.path, found, {layout.name_in_file(key): shape for key, shape in wanted.items()})
