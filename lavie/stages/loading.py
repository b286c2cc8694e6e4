"""From a spec and folders of weights to a stage that is ready to run."""

import json
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from lavie.errors import WeightsError
from lavie.faults import suggest
from lavie.spec import Spec, dump
from lavie.stages.base import Stage, StageSpec
from lavie.stages.latent_diffusion import LatentDiffusion, LatentDiffusionSpec
from lavie.stages.residence import InTurn
from lavie.weights.files import MANIFEST, prefixed, read_manifest
from lavie.weights.loading import check_folder, holds_the_same, read_into
from lavie.weights.stored import tensor_shapes

Weights = Mapping[str, Path]
"""A folder of weights for each single stage, by its name; "" for a stage that is no cascade."""
SHELF = Path(str(files("lavie"))) / "pretrained"
"""Holds the folders of weights that ship with lavie."""


def shipped_weights(spec: StageSpec, name: str = "") -> dict[str, Path]:
    """Return the folders of weights that ship with lavie for the stages of a spec; stages without any are left out.

    A folder belongs to a stage if it has the name of the spec, or else if it holds just the tensors of its networks; of
    several, the one that was made with the spec most like it.
    """
    if (SHELF / name / MANIFEST).is_file():
        return {"": SHELF / name}
    with torch.device("meta"):
        wanted = {part: _shapes(stage.build()) for part, stage in spec.parts().items()}
    held = {path.parent: tensor_shapes(path.parent) for path in sorted(SHELF.glob(f"*/{MANIFEST}"))}
    found: dict[str, Path] = {}
    for part, stage in spec.parts().items():
        if fitting := [folder for folder, shapes in held.items() if shapes == wanted[part]]:
            own = _values(dump(stage))
            found[part] = min(fitting, key=lambda folder: len(own ^ _values(read_manifest(folder).get("spec"))))
    return found


def _values(node: object, path: str = "") -> set[tuple[str, str]]:
    """Return what a spec says, value by value, with the place of each."""
    if isinstance(node, Mapping):
        return {value for key, each in node.items() for value in _values(each, f"{path}.{key}")}
    return {(path, json.dumps(node))}


def weights_in(folder: Path, spec: StageSpec) -> dict[str, Path]:
    """Return the folders of weights in `folder`: itself, or for a cascade one folder with the name of each stage."""
    folder = folder.parent if folder.is_file() else folder
    return {part: folder / part for part in spec.parts()}


def load_stage(
    spec: StageSpec,
    weights: Path | Weights | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    in_turn: bool = False,
) -> Stage:
    """Build a stage and load its weights; without `weights` it keeps fresh random ones.

    Networks of several stages that are the same are in memory once. With `in_turn`, only autoencoders stay there: other
    networks are read when they go to work and released when they are done. The videos are the same, bit for bit.

    Raises:
        WeightsError: if a folder is damaged or belongs to another network; nothing is loaded then.
    """
    folders = weights_in(weights, spec) if isinstance(weights, Path) else weights or {}
    if unknown := [name for name in folders if name not in spec.parts()]:
        known = f"{suggest(unknown[0], spec.parts())} Stages: {', '.join(map(repr, spec.parts()))}"
        raise WeightsError(f"weights for {unknown[0]!r}: the spec has no such stage.{known}")
    stage = _built(spec, folders.keys() == spec.parts().keys()).to(dtype=dtype).eval()
    parts = {name: _single(stage, name, folder) for name, folder in folders.items()}
    for name, part in parts.items():
        _check_networks(folders[name], part)
        check_folder(part.networks(), folders[name])
    twins, residence = twin_networks(spec, folders), InTurn()
    for name, part in parts.items():
        part.residence = residence
        for kind, network in part.networks().items():
            if (name, kind) in twins:
                twin, _ = twins[name, kind]
                setattr(part, kind, parts[twin].networks()[kind])
                continue
            load = partial(_load, network, kind, folders[name], device)
            if is_released(kind, network):
                residence.add(network, load, keep=not in_turn)
            else:
                load()
    for name in stage.parts().keys() - folders.keys():
        stage.parts()[name].to(device)
    return stage


def twin_networks(spec: StageSpec, folders: Weights | None = None) -> dict[tuple[str, str], tuple[str, str]]:
    """Return which networks, by part and name, are the same as one of an earlier part, and of which.

    They have the same spec and, where `folders` are given, the same weights.
    """
    twins, first = {}, dict[tuple[str, Spec], str]()
    for part, stage in spec.parts().items():
        if not isinstance(stage, LatentDiffusionSpec) or (folders is not None and part not in folders):
            continue
        for name, network in stage.networks().items():
            twin = first.setdefault((name, network), part)
            if twin != part and (folders is None or holds_the_same(folders[twin], folders[part], name)):
                twins[part, name] = twin, name
    return twins


def is_released(name: str, network: nn.Module) -> bool:
    """Tell whether a network is released between its turns: not the autoencoder, for videos are decoded later.

    Nor is one that computes tensors when it is built, which no file of weights brings back.
    """
    return name != "autoencoder" and _comes_from_file(network)


def _comes_from_file(network: nn.Module) -> bool:
    """Tell whether the state of a network is all that it holds."""
    return not any(
        module._non_persistent_buffers_set or any(isinstance(value, Tensor) for value in vars(module).values())
        for module in network.modules()
    )


def _built(spec: StageSpec, has_weights: bool) -> Stage:
    """Build a stage, if its weights come from files without memory for them."""
    if has_weights:
        with torch.device("meta"):
            stage = spec.build()
        if _comes_from_file(stage):
            return stage
    return spec.build()


def _single(stage: Stage, name: str, folder: Path) -> LatentDiffusion:
    part = stage.parts()[name]
    if not isinstance(part, LatentDiffusion):
        raise WeightsError(f"{folder}: weights folders hold latent_diffusion stages, not {type(part).__name__}")
    return part


def _load(network: nn.Module, name: str, folder: Path, device: torch.device | str) -> None:
    # Not to_empty: for tensors without memory it imports a compiler, which takes longer than a small model.
    network._apply(lambda t: _memory_for(t, device) if t.is_meta else t)  # type: ignore[no-untyped-call]
    network.to(device)
    read_into({name: network}, folder)


def _memory_for(tensor: Tensor, device: torch.device | str) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)


def _shapes(stage: Stage) -> dict[str, tuple[int, ...]]:
    if not isinstance(stage, LatentDiffusion):
        return {}
    return {name: tuple(value.shape) for name, value in prefixed(stage.networks()).items()}


def _check_networks(folder: Path, stage: LatentDiffusion) -> None:
    """Refuse a folder of some networks only, as `lavie convert` writes it from a file of one network."""
    held = read_manifest(folder).get("modules")
    if isinstance(held, list) and (missing := [name for name in stage.networks() if name not in held]):
        options = " ".join(f"--part {name}=PATH" for name in missing)
        raise WeightsError(
            f"{folder} holds {', '.join(map(str, held)) or 'nothing'}, but no {' and no '.join(missing)}. "
            f"Convert all parts into one folder: lavie convert {folder} {options}"
        )
