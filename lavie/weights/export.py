"""Weights of lavie written back as published files are, names, shapes and configurations included.

What came from a published file goes back bit by bit: same names, same spelling, same numbers, same dtype.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from lavie.atomic import replacing
from lavie.errors import WeightsError
from lavie.spec import Spec
from lavie.weights.configs import config_of
from lavie.weights.layouts import layout_for
from lavie.weights.source import FOLDERS, OWN, Holding, Part, read_source

Target = Literal["official", "diffusers", "ldm"]
"""LaVie's own files (the denoiser alone), a folder of diffusers, a single file of the latent-diffusion code."""
SUFFIXES = (".safetensors", ".pt", ".ckpt")
_LAYOUTS: dict[Target, dict[Part, tuple[str, ...]]] = {
    "official": {"denoiser": ("official",)},
    "diffusers": {
        "denoiser": ("official",),
        "autoencoder": ("diffusers", "diffusers_old"),
        "text_encoder": ("transformers", "transformers_bare"),
    },
    "ldm": {"denoiser": ("ldm",), "autoencoder": ("ldm",), "text_encoder": ("transformers", "openclip")},
}
"""The layouts that a target takes for each part; of several, the one that the part came in, or else the first."""
_PREFIXES = {
    ("denoiser", "ldm"): "model.diffusion_model.",
    ("autoencoder", "ldm"): "first_stage_model.",
    ("text_encoder", "transformers"): "cond_stage_model.transformer.",
    ("text_encoder", "openclip"): "cond_stage_model.model.",
}
_STEMS: dict[Part, str] = {
    "denoiser": "diffusion_pytorch_model",
    "autoencoder": "diffusion_pytorch_model",
    "text_encoder": "model",
}


@dataclass(frozen=True)
class Exported:
    """One part under published names."""

    part: Part
    layout: str
    tensors: Mapping[str, Tensor]
    places: Mapping[str, str]
    """Our key to theirs."""


def export(folder: Path, spec: Spec, target: Target) -> list[Exported]:
    """Rename the parts of a folder of weights for a target; data stays on disk.

    Raises:
        WeightsError: if the folder is damaged, or a part has tensors for which the target has no names.
    """
    with ExitStack() as stack:
        holdings = [each for each in read_source(folder, stack).holdings if each.part in _LAYOUTS[target]]
    if not holdings:
        raise WeightsError(f"{folder} holds nothing that goes into files of the kind {target!r}")
    if any(each.layout != OWN for each in holdings):
        raise WeightsError(f"{folder} is no weights folder of lavie; convert it into one first")
    return [_export(holding, getattr(spec, holding.part), target) for holding in holdings]


def _export(holding: Holding, spec: Spec, target: Target) -> Exported:
    names, origin = _LAYOUTS[target][holding.part], holding.origin
    came_in = str(origin.get("layout", ""))
    layout = layout_for(holding.part, came_in if came_in in names else names[0], spec)
    if nameless := [key for key in holding.tensors if not layout.keys.knows(key)]:
        raise WeightsError(
            f"{holding.part}: {len(nameless)} tensors, such as {nameless[0]}, have no names in files of the kind "
            f"{target!r}: those hold image networks only"
        )
    constants = None if came_in != layout.name else {key: holding.constants[key] for key in origin.get("constants", ())}
    tensors = layout.write(holding.tensors, constants)
    return Exported(holding.part, layout.name, tensors, {key: layout.name_in_file(key) for key in holding.tensors})


def write_file(parts: Sequence[Exported], path: Path, target: Target) -> None:
    """Write a single file, whole or not at all: safetensors, or what `torch.save` writes if the name says so.

    Raises:
        WeightsError: if the name has another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path}: the name of a single file ends in {', '.join(SUFFIXES)}")
    tensors = {
        _PREFIXES.get((each.part, each.layout), "") * (target == "ldm") + key: tensor.contiguous()
        for each in parts
        for key, tensor in each.tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(tensors, temporary)
        else:
            container = "ema" if target == "official" else "state_dict"
            torch.save({container: {key: tensor.clone() for key, tensor in tensors.items()}}, temporary)


def write_folder(parts: Sequence[Exported], spec: Spec, folder: Path) -> None:
    """Write a folder of diffusers, whole or not at all: one folder for each part, with its configuration.

    Raises:
        FileExistsError: if `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        for name, part in FOLDERS.items():
            for each in parts:
                if each.part == part:
                    inside = partial / name
                    inside.mkdir()
                    tensors = {key: tensor.contiguous() for key, tensor in each.tensors.items()}
                    save_file(tensors, inside / f"{_STEMS[part]}.safetensors", metadata={"format": "pt"})
                    config = json.dumps(config_of(part, getattr(spec, part)), indent=2)
                    (inside / "config.json").write_text(config + "\n", encoding="utf-8")
        partial.chmod(0o755)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
