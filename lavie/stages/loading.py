"""From a spec and a folder of weights to a stage that is ready to run."""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import torch

from lavie.errors import WeightsError
from lavie.stages.base import Stage, StageSpec
from lavie.stages.text_to_video import TextToVideo
from lavie.weights.files import MANIFEST, load_into, read_manifest


def shipped_weights(name: str) -> Path | None:
    """Return the folder of weights that ships with lavie for a shipped spec, or None where there is none."""
    folder = Path(str(files("lavie"))) / "pretrained" / name
    return folder if (folder / MANIFEST).is_file() else None


def load_stage(
    spec: StageSpec,
    weights: Path | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Stage:
    """Build a stage and load its weights; without `weights` it keeps fresh random ones.

    Raises:
        WeightsError: if the folder is damaged or belongs to another network; nothing is loaded then.
    """
    stage = spec.build()
    if weights is not None:
        if not isinstance(stage, TextToVideo):
            raise WeightsError(f"{weights}: weights folders hold text_to_video stages, not {type(stage).__name__}")
        modules = {"denoiser": stage.denoiser, "autoencoder": stage.autoencoder, "text_encoder": stage.text_encoder}
        _check_parts(weights, modules)
        load_into(modules, weights)
    return stage.to(device=device, dtype=dtype).eval()


def _check_parts(weights: Path, wanted: Iterable[str]) -> None:
    """Refuse a folder of some parts only, as `lavie convert` writes it from a file of one network."""
    held = read_manifest(weights).get("modules")
    if isinstance(held, list) and (missing := [name for name in wanted if name not in held]):
        options = " ".join(f"--part {name}=PATH" for name in missing)
        raise WeightsError(
            f"{weights} holds {', '.join(map(str, held)) or 'nothing'}, but no {' and no '.join(missing)}. "
            f"Convert all parts into one folder: lavie convert {weights} {options}"
        )
