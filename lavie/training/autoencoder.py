"""The phase that trains the autoencoder on single frames."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor, nn

from lavie.blocks.autoencoder import Autoencoder
from lavie.data.base import DatasetSpec
from lavie.spec import Count, NonNegative
from lavie.stages.latent_diffusion import LatentDiffusion
from lavie.training.losses import contrast_weight, kl_divergence, psnr, weighted_l1
from lavie.training.phase import Batch, Phase, PhaseSpec, Source, held_back
from lavie.training.pictures import draw_pairs
from lavie.training.randomness import Draws

logger = logging.getLogger(__name__)


class AutoencoderPhaseSpec(PhaseSpec):
    """Train the autoencoder: reconstruction with an eye on small objects, and a little KL divergence."""

    type: Literal["autoencoder"] = "autoencoder"
    data: DatasetSpec
    """Where frames come from; clips are taken as their frames."""
    batch_size: Count = 32
    """Clips per step."""
    emphasis: NonNegative = 4.0
    """Extra weight of pixels that differ from the background."""
    kl_weight: NonNegative = 1e-6
    """Weight of the KL divergence from the unit normal, in nats per image."""

    def build(self, stage: LatentDiffusion) -> "AutoencoderPhase":
        """Build the phase around the autoencoder of a stage."""
        return AutoencoderPhase(self, stage)


@final
class AutoencoderPhase(Phase):
    """Trains the autoencoder."""

    def __init__(self, spec: AutoencoderPhaseSpec, stage: LatentDiffusion) -> None:
        self.spec: AutoencoderPhaseSpec = spec
        self.autoencoder = stage.autoencoder
        self.dataset = spec.data.build()

    def trained(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder}

    def sources(self) -> dict[str, Source]:
        return {"frames": Source(self.dataset, self.spec.batch_size)}

    def losses(self, batches: Mapping[str, Batch], draws: Draws) -> dict[str, Tensor]:
        video = batches["frames"].video
        mean, log_variance = self.autoencoder.moments(video)
        noise = torch.randn(mean.shape, generator=draws.generator("posterior")).to(mean)
        latent = (mean + (0.5 * log_variance).exp() * noise) * self.autoencoder.scaling_factor
        l1 = weighted_l1(self.autoencoder.decode(latent), video, contrast_weight(video, self.spec.emphasis))
        kl = kl_divergence(mean, log_variance)
        return {"loss": l1 + self.spec.kl_weight * kl, "l1": l1, "kl": kl}

    @torch.no_grad()
    def look(self, averaged: Mapping[str, nn.Module], picture: Path) -> dict[str, float]:
        autoencoder = averaged["autoencoder"]
        assert isinstance(autoencoder, Autoencoder)
        device = autoencoder.anchor.device
        clips = [clip.video for clip in held_back(self.spec.evaluation, self.dataset)]
        latents, decoded = [], []
        for start in range(0, len(clips), 32):
            part = torch.stack(clips[start : start + 32]).to(device)
            latents.append(autoencoder.encode(part).cpu())
            decoded.append(autoencoder.decode(latents[-1].to(device)).clamp(-1, 1).cpu())
        video, again = torch.stack(clips), torch.cat(decoded)
        draw_pairs(video[:32], again[:32], picture)
        std = float(torch.cat(latents).std())
        if not 0.9 < std < 1.1:
            advice = (
                f"set autoencoder.scaling_factor to {autoencoder.scaling_factor / std:.4g} before training a denoiser"
            )
            logger.warning("latents have a standard deviation of %.3f instead of 1; %s", std, advice)
        return {"psnr": psnr(again, video), "latent_std": std, "best_scaling_factor": autoencoder.scaling_factor / std}
