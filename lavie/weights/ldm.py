"""Weights under the names of the latent-diffusion code, which single files of Stable Diffusion have kept.

Those names number the blocks of the UNet through all levels, and the levels of the decoder from fine to coarse, so the
maps depend on how many there are.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from lavie.blocks.autoencoder import AutoencoderKLSpec
from lavie.blocks.conditioning import NoiseLevelSpec
from lavie.blocks.unet import UNetSpec
from lavie.weights.keymap import KeyMap, Rule, under
from lavie.weights.layout import Layout

PREFIXES = {
    "model.diffusion_model.": "denoiser",
    "first_stage_model.": "autoencoder",
    "cond_stage_model.transformer.": "text_encoder",
    "cond_stage_model.model.": "text_encoder",
}
"""What stands before the names of each part in a single file; the two text encoders are CLIP's and OpenCLIP's."""
_AVERAGES = "moving averages of the same tensors"
_TABLE = "a table of the noise schedule, which the spec determines"
IDLE = {
    r"model_ema\..*": _AVERAGES,
    r"(?:sqrt_(?:recip(?:m1)?_|one_minus_)?|log_one_minus_)?alphas_cumprod(?:_prev)?|betas": _TABLE,
    r"posterior_(?:variance|log_variance_clipped|mean_coef[12])|lvlb_weights|logvar|scale_factor": _TABLE,
    r"cond_stage_model\.logit_scale": "used in training the text encoder only",
}
"""Patterns of what else a single file holds, and why it is left over."""

_RESBLOCK = (
    Rule("norm1.{leaf}", "in_layers.0.{leaf}"),
    Rule("conv1.{leaf}", "in_layers.2.{leaf}"),
    Rule("time.projection.{leaf}", "emb_layers.1.{leaf}"),
    Rule("norm2.{leaf}", "out_layers.0.{leaf}"),
    Rule("conv2.{leaf}", "out_layers.3.{leaf}"),
    Rule("shortcut.{leaf}", "skip_connection.{leaf}"),
)


def _transformer() -> Iterable[Rule]:
    block = "transformer_blocks.0."
    for name in ("norm", "proj_in", "proj_out"):
        yield Rule(f"{name}.{{leaf}}", f"{name}.{{leaf}}")
    for ours, theirs in (("spatial", "attn1"), ("text", "attn2")):
        for own, other in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", "to_out.0")):
            yield Rule(f"sublayers.{ours}.layer.attention.{own}.{{leaf}}", f"{block}{theirs}.{other}.{{leaf}}")
    for ours, theirs in (("spatial", "norm1"), ("text", "norm2"), ("feed_forward", "norm3")):
        yield Rule(f"sublayers.{ours}.norm.{{leaf}}", f"{block}{theirs}.{{leaf}}")
    yield Rule("sublayers.feed_forward.layer.expand.{leaf}", f"{block}ff.net.0.proj.{{leaf}}")
    yield Rule("sublayers.feed_forward.layer.contract.{leaf}", f"{block}ff.net.2.{{leaf}}")


def _unet_rules(spec: UNetSpec) -> Iterable[Rule]:
    transformer, num_levels = tuple(_transformer()), len(spec.channels)
    yield from (
        Rule("time_embedding.expand.{leaf}", "time_embed.0.{leaf}"),
        Rule("time_embedding.mix.{leaf}", "time_embed.2.{leaf}"),
        Rule("conv_in.{leaf}", "input_blocks.0.0.{leaf}"),
        Rule("norm_out.{leaf}", "out.0.{leaf}"),
        Rule("conv_out.{leaf}", "out.2.{leaf}"),
    )
    for index, conditioner in enumerate(spec.conditioners):
        if isinstance(conditioner, NoiseLevelSpec):
            yield Rule(f"conditioners.{index}.table.weight", "label_emb.weight")
    for level in range(num_levels):
        first = 1 + level * (spec.num_res_blocks + 1)
        for layer in range(spec.num_res_blocks):
            ours, theirs = f"down.{level}.layers.{layer}.", f"input_blocks.{first + layer}."
            yield from under(f"{ours}resblock.", f"{theirs}0.", _RESBLOCK)
            yield from under(f"{ours}transformer.", f"{theirs}1.", transformer)
        last = first + spec.num_res_blocks
        yield Rule(f"down.{level}.resample.conv.{{leaf}}", f"input_blocks.{last}.0.op.{{leaf}}")
    yield from under("mid.layer.resblock.", "middle_block.0.", _RESBLOCK)
    yield from under("mid.layer.transformer.", "middle_block.1.", transformer)
    yield from under("mid.resblock.", "middle_block.2.", _RESBLOCK)
    for level in range(num_levels):
        for layer in range(spec.num_res_blocks + 1):
            number = level * (spec.num_res_blocks + 1) + layer
            ours, theirs = f"up.{level}.layers.{layer}.", f"output_blocks.{number}."
            yield from under(f"{ours}resblock.", f"{theirs}0.", _RESBLOCK)
            yield from under(f"{ours}transformer.", f"{theirs}1.", transformer)
        # The upsampler is the last thing in the level's last block, after the transformer if there is one.
        place = 2 if spec.attention.at(num_levels - 1 - level) else 1
        yield Rule(f"up.{level}.resample.conv.{{leaf}}", f"output_blocks.{number}.{place}.conv.{{leaf}}")


def unet_layout(spec: UNetSpec) -> Layout:
    """Return the layout of a UNet; tensors of temporal parts have no names in it."""
    return Layout("ldm", KeyMap(tuple(_unet_rules(spec))))


_IMAGE_RESBLOCK = tuple(
    Rule(f"{ours}.{{leaf}}", f"{theirs}.{{leaf}}")
    for ours, theirs in (*((name, name) for name in ("norm1", "conv1", "norm2", "conv2")), ("shortcut", "nin_shortcut"))
)
_KERNEL = re.compile(r"(?:encoder|decoder)\.mid\.attn_1\.(?:q|k|v|proj_out)\.weight")


def _kl_rules(num_levels: int) -> Iterable[Rule]:
    for half, way, resample in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        for level in range(num_levels):
            number = level if way == "down" else num_levels - 1 - level
            ours, theirs = f"{half}.{way}.{level}.", f"{half}.{way}.{number}."
            yield from under(f"{ours}resblocks.{{j}}.", f"{theirs}block.{{j}}.", _IMAGE_RESBLOCK)
            yield Rule(f"{ours}resample.conv.{{leaf}}", f"{theirs}{resample}.conv.{{leaf}}")
        for index in range(2):
            yield from under(f"{half}.mid.resblocks.{index}.", f"{half}.mid.block_{index + 1}.", _IMAGE_RESBLOCK)
        yield Rule(f"{half}.mid.attention.norm.{{leaf}}", f"{half}.mid.attn_1.norm.{{leaf}}")
        for own, other in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "proj_out")):
            yield Rule(f"{half}.mid.attention.mix.{own}.{{leaf}}", f"{half}.mid.attn_1.{other}.{{leaf}}")
        for name in ("conv_in", "norm_out", "conv_out"):
            yield Rule(f"{half}.{name}.{{leaf}}", f"{half}.{name}.{{leaf}}")
    yield Rule("quant_conv.{leaf}", "quant_conv.{leaf}")
    yield Rule("post_quant_conv.{leaf}", "post_quant_conv.{leaf}")


def _to_matrix(key: str, tensor: Tensor) -> Mapping[str, Tensor]:
    is_kernel = _KERNEL.fullmatch(key) is not None and tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
    return {key: tensor.flatten(1) if is_kernel else tensor}


def _to_kernels(file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor[..., None, None] if _KERNEL.fullmatch(key) else tensor for key, tensor in file.items()}


def kl_layout(spec: AutoencoderKLSpec) -> Layout:
    """Return the layout of an autoencoder; its attention is stored as 1×1 kernels."""
    idle = {r"loss\..*": "judges pictures in training only", r"model_ema\..*": _AVERAGES}
    return Layout("ldm", KeyMap(tuple(_kl_rules(len(spec.channels)))), _to_matrix, _to_kernels, idle)
