"""Contact sheets of frames as PNG files."""

from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

MAX_WIDTH = 1600


def save_grid(frames: Float[Tensor, "rows columns 3 h w"], path: Path) -> None:
    """Save frames in [-1, 1], several rows side by side where they are short, with thin lines between."""
    rows, columns, _, _, width = frames.shape
    beside = max(1, min(rows, MAX_WIDTH // (columns * width + 6)))
    padded = torch.nn.functional.pad(frames.float().cpu().clamp(-1, 1), (0, 1, 0, 1), value=0.2)
    padded = torch.cat([padded, padded.new_full((-rows % beside, *padded.shape[1:]), -1.0)])
    grid = rearrange(padded, "(r s) k c h w -> (r h) (s k w) c", s=beside)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((grid + 1) * 127.5).round().to(torch.uint8).numpy()).save(path)
