"""lavie's own components, registered through the same hook as everybody else's; imported by name only."""

from lavie.blocks import (
    autoencoder,
    bias,
    conditioning,
    patches,
    position,
    resnet,
    spatial,
    temporal,
    temporal_conv,
    text,
    tokenizer,
    unet,
)
from lavie.data import crop, head, shapes
from lavie.metrics.drift import DriftSpec
from lavie.metrics.shapes import ShapesAccuracySpec
from lavie.registry import hookimpl
from lavie.samplers import (
    apg,
    curves,
    ddim,
    ddpm,
    dpmpp,
    dpmpp_sde,
    euler,
    euler_ancestral,
    free_init,
    guidance,
    heun,
    interval,
    lcm,
    perturbed_attention,
    rescale,
    schedule,
    thresholding,
    unipc,
)
from lavie.spec import Spec
from lavie.stages import (
    cascade,
    coverage,
    fifo,
    free_noise,
    given_frames,
    latent_diffusion,
    low_res,
    recursive,
    windows,
)
from lavie.training import autoencoder as autoencoder_phase
from lavie.training import denoiser as denoiser_phase
from lavie.training import recipe


@hookimpl
def lavie_components() -> list[type[Spec]]:
    """List every component that ships with lavie; a new one is one line here."""
    return [
        # temporal layers
        temporal.NoTemporalSpec,
        temporal.TemporalAttentionSpec,
        temporal_conv.TemporalConvBlockSpec,
        temporal_conv.SpatioTemporalBlockSpec,
        # positions and biases of temporal attention
        position.NoPositionSpec,
        position.RotarySpec,
        bias.NoBiasSpec,
        bias.RelativeBiasSpec,
        # spatial layers
        spatial.SpatialAttentionSpec,
        spatial.SparseCausalAttentionSpec,
        spatial.TextAttentionSpec,
        # residual blocks
        resnet.InflatedResBlockSpec,
        resnet.ModulatedResBlockSpec,
        # conditioners
        conditioning.ConcatSpec,
        conditioning.NoiseLevelSpec,
        conditioning.PooledTextSpec,
        conditioning.FrameIndexSpec,
        # denoisers
        unet.UNetSpec,
        # between pixels, prompts and what the denoiser sees
        autoencoder.AutoencoderKLSpec,
        patches.PatchesSpec,
        text.ClipTextSpec,
        tokenizer.ClipBpeSpec,
        tokenizer.WordsSpec,
        # noise levels and guidance
        schedule.LinearScheduleSpec,
        schedule.ScaledLinearScheduleSpec,
        curves.CosineScheduleSpec,
        curves.SigmoidScheduleSpec,
        schedule.FlowScheduleSpec,
        guidance.ClassifierFreeSpec,
        guidance.NoGuidanceSpec,
        apg.AdaptiveProjectedSpec,
        rescale.RescaleSpec,
        interval.IntervalSpec,
        thresholding.DynamicThresholdingSpec,
        perturbed_attention.PerturbedAttentionSpec,
        # solvers
        ddpm.DDPMSpec,
        ddim.DDIMSpec,
        euler.EulerSpec,
        euler_ancestral.EulerAncestralSpec,
        heun.HeunSpec,
        dpmpp.DPMPP2MSpec,
        dpmpp_sde.DPMPP2MSDESpec,
        unipc.UniPCSpec,
        lcm.LCMSpec,
        free_init.FreeInitSpec,
        # stages
        latent_diffusion.LatentDiffusionSpec,
        cascade.CascadeSpec,
        given_frames.GivenFramesSpec,
        low_res.LowResSpec,
        coverage.AtOnceSpec,
        windows.WindowsSpec,
        free_noise.FreeNoiseSpec,
        fifo.FifoSpec,
        recursive.RecursiveSpec,
        # data and metrics
        head.HeadSpec,
        crop.CropSpec,
        shapes.ShapesSpec,
        ShapesAccuracySpec,
        DriftSpec,
        # training
        autoencoder_phase.AutoencoderPhaseSpec,
        denoiser_phase.DenoiserPhaseSpec,
        recipe.TrainSpec,
    ]
