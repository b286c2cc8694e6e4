"""Noise tables of recorded trajectories, in the float32 arithmetic of the scheduler that recorded them.

Near the latent little noise is left, and what rounding does to it shows in every solver; what is tested is the solver.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from lavie.errors import LavieError
from lavie.samplers.curves import CosineScheduleSpec
from lavie.samplers.schedule import VariancePreserving

Options = Mapping[str, Any]


class UnsupportedError(LavieError):
    """A recorded trajectory of a scheduler, or with an option, that lavie has no counterpart for."""


def recorded_table(options: Options, terminal_sigma: float | None) -> VariancePreserving:
    """Return the noise table that options of diffusers stand for.

    `terminal_sigma` is what the scheduler takes for an infinite sigma where the betas are rescaled to zero terminal
    SNR; None where it leaves them alone.

    Raises:
        UnsupportedError: if lavie has no such table.
    """
    with torch.device("cpu"):
        betas = _betas(options)
    if not bool(((betas > 0) & (betas < 1)).all()):
        raise UnsupportedError("no such noise table: its betas are not all between 0 and 1")
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    if not options.get("rescale_betas_zero_snr") or terminal_sigma is None:
        return VariancePreserving(alphas_cumprod.tolist())
    return VariancePreserving(_ended(_stretched(alphas_cumprod).tolist(), 1 / (1 + terminal_sigma**2)))


def _betas(options: Options) -> Float32[Tensor, " timesteps"]:
    count, name = options["num_train_timesteps"], options["beta_schedule"]
    if options.get("trained_betas") is not None:
        return torch.tensor(options["trained_betas"], dtype=torch.float32)
    if name == "squaredcos_cap_v2":
        alphas = CosineScheduleSpec(num_train_timesteps=count).build().alphas_cumprod
        return torch.cat((1 - alphas[:1], 1 - alphas[1:] / alphas[:-1])).float()
    start, end = float(options["beta_start"]), float(options["beta_end"])
    match name:
        case "linear":
            return torch.linspace(start, end, count)
        case "scaled_linear":
            return torch.linspace(start**0.5, end**0.5, count).square()
        case "sigmoid":
            return torch.linspace(-6, 6, count).sigmoid() * (end - start) + start
    raise UnsupportedError(f"beta_schedule={name} has no counterpart")


def _stretched(alphas_cumprod: Float32[Tensor, " timesteps"]) -> Float[Tensor, " timesteps"]:
    """Move the root of the last entry to zero, and the others along (arXiv 2305.08891, algorithm 1), through betas."""
    roots = alphas_cumprod.sqrt()
    moved = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))).square()
    betas = 1 - torch.cat((moved[:1], moved[1:] / moved[:-1]))
    return torch.cumprod(1 - betas, dim=0)


def _ended(table: list[float], last: float) -> list[float]:
    """Set the last entry of a table, and spread those that are below it between it and the rest.

    Some schedulers take so much for nothing that their tables turn round at the end; no usual grid stops in there.
    """
    kept = [alpha for alpha in table[:-1] if alpha > last]
    ratio = (last / kept[-1]) ** (1 / (len(table) - len(kept)))
    return kept + [kept[-1] * ratio**index for index in range(1, len(table) - len(kept))] + [last]
