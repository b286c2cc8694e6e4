"""From a spec and folders of weights to a stage that is ready to run."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch

from lavie.errors import WeightsError
from lavie.stages.base import Stage, StageSpec
from lavie.stages.latent_diffusion import LatentDiffusion
from lavie.weights.files import MANIFEST, WEIGHTS_FILE, load_into, prefixed, read_manifest

Weights = Mapping[str, Path]
"""A folder of weights for each single stage, by its name; "" for a stage that is no cascade."""


def shipped_weights(spec: StageSpec, name: str = "") -> dict[str, Path]:
    """Return the folders of weights that ship with lavie for the stages of a spec; stages without any are left out.

    A folder belongs to a stage if it has the name of the spec, or else if it holds just the tensors of its networks.
    """
    shelf = Path(str(files("lavie"))) / "pretrained"
    if (shelf / name / MANIFEST).is_file():
        return {"": shelf / name}
    with torch.device("meta"):
        wanted = {part: _shapes(stage.build()) for part, stage in spec.parts().items()}
    found: dict[str, Path] = {}
    for folder in sorted(path.parent for path in shelf.glob(f"*/{MANIFEST}")):
        held = read_manifest(folder)["files"].get(WEIGHTS_FILE, {}).get("tensors")
        found |= {part: folder for part, shapes in wanted.items() if part not in found and shapes == held}
    return {part: found[part] for part in wanted if part in found}


def weights_in(folder: Path, spec: StageSpec) -> dict[str, Path]:
    """Return the folders of weights in `folder`: itself, or for a cascade one folder with the name of each stage."""
    folder = folder.parent if folder.is_file() else folder
    return {part: folder / part for part in spec.parts()}


def load_stage(
    spec: StageSpec,
    weights: Path | Weights | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Stage:
    """Build a stage and load its weights; without `weights` it keeps fresh random ones.

    Raises:
        WeightsError: if a folder is damaged or belongs to another network; nothing is loaded then.
    """
    stage = spec.build()
    folders = weights_in(weights, spec) if isinstance(weights, Path) else weights or {}
    for name, folder in folders.items():
        part = stage.parts()[name]
        if not isinstance(part, LatentDiffusion):
            raise WeightsError(f"{folder}: weights folders hold latent_diffusion stages, not {type(part).__name__}")
        _check_networks(folder, part)
        load_into(part.networks(), folder)
    return stage.to(device=device, dtype=dtype).eval()


def _shapes(stage: Stage) -> dict[str, list[int]]:
    if not isinstance(stage, LatentDiffusion):
        return {}
    return {name: [*value.shape] for name, value in prefixed(stage.networks()).items()}


def _check_networks(folder: Path, stage: LatentDiffusion) -> None:
    """Refuse a folder of some networks only, as `lavie convert` writes it from a file of one network."""
    held = read_manifest(folder).get("modules")
    if isinstance(held, list) and (missing := [name for name in stage.networks() if name not in held]):
        options = " ".join(f"--part {name}=PATH" for name in missing)
        raise WeightsError(
            f"{folder} holds {', '.join(map(str, held)) or 'nothing'}, but no {' and no '.join(missing)}. "
            f"Convert all parts into one folder: lavie convert {folder} {options}"
        )
