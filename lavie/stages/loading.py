"""From a spec and a folder of weights to a stage that is ready to run."""

from importlib.resources import files
from pathlib import Path

import torch

from lavie.errors import WeightsError
from lavie.stages.base import Stage, StageSpec
from lavie.stages.text_to_video import TextToVideo
from lavie.weights.files import MANIFEST, load_into


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
        load_into(
            {"denoiser": stage.denoiser, "autoencoder": stage.autoencoder, "text_encoder": stage.text_encoder}, weights
        )
    return stage.to(device=device, dtype=dtype).eval()
