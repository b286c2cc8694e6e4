"""Weights and configurations of Stable Diffusion's autoencoder, under the names that published files use."""

from collections.abc import Iterable, Mapping
from typing import Any

from lavie.blocks.autoencoder import AutoencoderKLSpec
from lavie.errors import WeightsError
from lavie.weights.keymap import KeyMap, Rule, under

_RESBLOCK = (
    Rule("norm1.{leaf}", "norm1.{leaf}"),
    Rule("conv1.{leaf}", "conv1.{leaf}"),
    Rule("norm2.{leaf}", "norm2.{leaf}"),
    Rule("conv2.{leaf}", "conv2.{leaf}"),
    Rule("shortcut.{leaf}", "conv_shortcut.{leaf}"),
)
_PROJECTIONS = (
    ("query", "to_q", "query"),
    ("key", "to_k", "key"),
    ("value", "to_v", "value"),
    ("out", "to_out.0", "proj_attn"),
)
"""Ours, the present name, and the one of files older than its renaming; the published files are that old."""


def _rules(legacy: bool) -> Iterable[Rule]:
    for ours, present, old in _PROJECTIONS:
        written, read = (old, present) if legacy else (present, old)
        yield from (
            Rule(
                f"{half}.mid.attention.mix.{ours}.{{leaf}}",
                f"{half}.mid_block.attentions.0.{written}.{{leaf}}",
                aliases=(f"{half}.mid_block.attentions.0.{read}.{{leaf}}",),
            )
            for half in ("encoder", "decoder")
        )
    for half, way, resample in (("encoder", "down", "downsamplers"), ("decoder", "up", "upsamplers")):
        level, block = f"{half}.{way}.{{i}}.", f"{half}.{way}_blocks.{{i}}."
        yield from under(f"{level}resblocks.{{j}}.", f"{block}resnets.{{j}}.", _RESBLOCK)
        yield Rule(f"{level}resample.conv.{{leaf}}", f"{block}{resample}.0.conv.{{leaf}}")
        yield from under(f"{half}.mid.resblocks.{{j}}.", f"{half}.mid_block.resnets.{{j}}.", _RESBLOCK)
        yield Rule(f"{half}.mid.attention.norm.{{leaf}}", f"{half}.mid_block.attentions.0.group_norm.{{leaf}}")
        yield Rule(f"{half}.conv_in.{{leaf}}", f"{half}.conv_in.{{leaf}}")
        yield Rule(f"{half}.norm_out.{{leaf}}", f"{half}.conv_norm_out.{{leaf}}")
        yield Rule(f"{half}.conv_out.{{leaf}}", f"{half}.conv_out.{{leaf}}")
    yield Rule("quant_conv.{leaf}", "quant_conv.{leaf}")
    yield Rule("post_quant_conv.{leaf}", "post_quant_conv.{leaf}")


def kl_map(*, legacy: bool = False) -> KeyMap:
    """Return the map of the autoencoder's names; `legacy` writes the attention as old files spell it.

    Both spellings are read, whichever is written.
    """
    return KeyMap(tuple(_rules(legacy)))


def spec_from_config(config: Mapping[str, Any]) -> AutoencoderKLSpec:
    """Turn the configuration of a published autoencoder (`AutoencoderKL`) into a spec.

    Raises:
        WeightsError: if it describes a network that this one is not.
    """
    only = {
        "in_channels": 3,
        "out_channels": 3,
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * len(config["block_out_channels"]),
        "up_block_types": ["UpDecoderBlock2D"] * len(config["block_out_channels"]),
    }
    for name, value in only.items():
        if config.get(name, value) != value:
            raise WeightsError(f"an autoencoder with {name} = {config[name]!r} cannot be built, only with {value!r}")
    return AutoencoderKLSpec(
        channels=tuple(config["block_out_channels"]),
        num_res_blocks=config["layers_per_block"],
        latent_channels=config["latent_channels"],
        # Configurations older than the field belong to Stable Diffusion 1, whose factor is our default.
        scaling_factor=config.get("scaling_factor", AutoencoderKLSpec.model_fields["scaling_factor"].default),
        norm_groups=config["norm_num_groups"],
        attention=config.get("mid_block_add_attention", True),
    )
