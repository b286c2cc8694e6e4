"""UNet weights under their official names, and UNet specs from official configurations."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

from torch import Tensor

from lavie.blocks.base import ConditionerSpec, SpatialSpec, TemporalSpec
from lavie.blocks.bias import RelativeBiasSpec
from lavie.blocks.conditioning import ConcatSpec, NoiseLevelSpec
from lavie.blocks.position import RotarySpec, rotary_frequencies
from lavie.blocks.spatial import SparseCausalAttentionSpec, SpatialAttentionSpec, TextAttentionSpec
from lavie.blocks.temporal import NoTemporalSpec, TemporalAttentionSpec
from lavie.blocks.temporal_conv import SpatioTemporalBlockSpec, TemporalConvBlockSpec
from lavie.blocks.transformer import Sublayer, TransformerSpec
from lavie.blocks.unet import NormSpec, UNetSpec
from lavie.errors import WeightsError
from lavie.spec import PerLevel
from lavie.weights.keymap import Derived, KeyMap, Rule, under

Network = Literal["base", "interpolation", "upscaling"]
"""Whose names: the first two call their temporal parts `_temp`, the last `_temporal`."""

_RESBLOCK = (
    Rule("norm1.{leaf}", "norm1.{leaf}"),
    Rule("conv1.{leaf}", "conv1.{leaf}"),
    Rule("time.projection.{leaf}", "time_emb_proj.{leaf}"),
    Rule("norm2.{leaf}", "norm2.{leaf}"),
    Rule("conv2.{leaf}", "conv2.{leaf}"),
    Rule("shortcut.{leaf}", "conv_shortcut.{leaf}"),
)
_ATTENTION = (
    Rule("query.weight", "to_q.weight"),
    Rule("key.weight", "to_k.weight"),
    Rule("value.weight", "to_v.weight"),
    Rule("out.{leaf}", "to_out.0.{leaf}"),
)
_AFTER = (
    *under("temporal.", "resblocks_3d_t.", _RESBLOCK),
    *under("spatial.", "resblocks_3d_s.", _RESBLOCK),
    Rule("out.{leaf}", "shift_conv.{leaf}"),
)


def _transformer(temporal: str) -> tuple[Rule, ...]:
    block = "transformer_blocks.0."
    bias = "time_rel_pos_bias.relative_attention_bias.weight"
    return (
        Rule("norm.{leaf}", "norm.{leaf}"),
        Rule("proj_in.{leaf}", "proj_in.{leaf}"),
        Rule("proj_out.{leaf}", "proj_out.{leaf}"),
        *under("before.", "resblock_temporal.", _RESBLOCK),
        *under("sublayers.spatial.layer.attention.", f"{block}attn1.", _ATTENTION),
        *under("sublayers.text.layer.attention.", f"{block}attn2.", _ATTENTION),
        *under("sublayers.temporal.layer.attention.", f"{block}attn_{temporal}.", _ATTENTION),
        Rule("sublayers.temporal.layer.bias.table.weight", f"{block}attn_{temporal}.{bias}"),
        Rule("sublayers.feed_forward.layer.expand.{leaf}", f"{block}ff.net.0.proj.{{leaf}}"),
        Rule("sublayers.feed_forward.layer.contract.{leaf}", f"{block}ff.net.2.{{leaf}}"),
        Rule("sublayers.spatial.norm.{leaf}", f"{block}norm1.{{leaf}}"),
        Rule("sublayers.text.norm.{leaf}", f"{block}norm2.{{leaf}}"),
        Rule("sublayers.temporal.norm.{leaf}", f"{block}norm_{temporal}.{{leaf}}"),
        Rule("sublayers.feed_forward.norm.{leaf}", f"{block}norm3.{{leaf}}"),
    )


def _rules(temporal: str, noise_level_at: int) -> Iterable[Rule]:
    transformer = _transformer(temporal)
    yield from (
        Rule("conv_in.{leaf}", "conv_in.{leaf}"),
        Rule("time_embedding.expand.{leaf}", "time_embedding.linear_1.{leaf}"),
        Rule("time_embedding.mix.{leaf}", "time_embedding.linear_2.{leaf}"),
        Rule(f"conditioners.{noise_level_at}.table.weight", "class_embedding.weight"),
        Rule("norm_out.{leaf}", "conv_norm_out.{leaf}"),
        Rule("conv_out.{leaf}", "conv_out.{leaf}"),
    )
    for ours, theirs, resample in (("down", "down", "downsamplers"), ("up", "up", "upsamplers")):
        level = f"{ours}.{{i}}."
        yield from under(f"{level}layers.{{j}}.resblock.", f"{theirs}_blocks.{{i}}.resnets.{{j}}.", _RESBLOCK)
        yield from under(f"{level}layers.{{j}}.transformer.", f"{theirs}_blocks.{{i}}.attentions.{{j}}.", transformer)
        yield Rule(f"{level}resample.conv.{{leaf}}", f"{theirs}_blocks.{{i}}.{resample}.0.conv.{{leaf}}")
        yield from under(f"{level}after.", f"{theirs}_temporal_blocks.{{i}}.", _AFTER)
    yield from under("mid.layer.resblock.", "mid_block.resnets.0.", _RESBLOCK)
    yield from under("mid.layer.transformer.", "mid_block.attentions.0.", transformer)
    yield from under("mid.resblock.", "mid_block.resnets.1.", _RESBLOCK)
    yield from under("mid.after.", "mid_temporal_block.", _AFTER)


def unet_map(network: Network, rotary_dim: int | None = None, *, noise_level_at: int = 1) -> KeyMap:
    """Return the map between our UNet's names and an official network's.

    With `rotary_dim`, official files carry the rotary frequencies beside every temporal attention; the base and
    super-resolution networks have 32. `noise_level_at` is the place of the noise level among the conditioners.
    """
    temporal = "temporal" if network == "upscaling" else "temp"
    derived: list[Derived] = []
    if rotary_dim is not None:

        def frequencies(_: Tensor) -> Tensor:
            return rotary_frequencies(rotary_dim).float()

        places = (
            ("down.{i}.layers.{j}.", "down_blocks.{i}.attentions.{j}."),
            (
                "mid.layer.",
                "mid_block.attentions.0.",
            ),
            ("up.{i}.layers.{j}.", "up_blocks.{i}.attentions.{j}."),
        )
        derived = [
            Derived(
                f"{theirs}transformer_blocks.0.attn_{temporal}.rotary_emb.freqs",
                beside=f"{ours}transformer.sublayers.temporal.layer.attention.query.weight",
                value=frequencies,
            )
            for ours, theirs in places
        ]
        if network == "upscaling":
            derived.append(Derived("temporal_rotary_emb.freqs", beside="conv_in.weight", value=frequencies))
    return KeyMap(tuple(_rules(temporal, noise_level_at)), derived=derived)


@lru_cache(maxsize=32)
def map_for(spec: UNetSpec) -> KeyMap:
    """Return the official names that fit a spec: which network it descends from is read off its parts."""
    levels = [index for index, part in enumerate(spec.conditioners) if isinstance(part, NoiseLevelSpec)]
    temporal = spec.transformer.temporal.at_mid()
    position = temporal.position if isinstance(temporal, TemporalAttentionSpec) else None
    rotary_dim = position.dim if isinstance(position, RotarySpec) else None
    network: Network = "upscaling" if levels else "base"
    return unet_map(network, rotary_dim, noise_level_at=levels[0] if levels else 1)


def spec_from_config(config: Mapping[str, Any], network: Network | Literal["image"]) -> UNetSpec:
    """Turn an official configuration (names of the 2D UNet's config) into a spec; `image` is the plain 2D network.

    The field called `attention_head_dim` there holds the number of heads. Input channels beyond the output's are a
    further input. Fields that are missing have the values of the 2D UNet.

    Raises:
        WeightsError: if it describes a network that this one is not.
    """
    config = {**_DEFAULTS, **config}
    for name, only in _FIXED.items():
        if config.get(name, only) != only:
            raise WeightsError(f"a network with {name} = {config[name]!r} cannot be built, only with {only!r}")
    heads, upscales = config["attention_head_dim"], network == "upscaling"
    return UNetSpec(
        in_channels=config["out_channels"],
        out_channels=config["out_channels"],
        channels=tuple(config["block_out_channels"]),
        attention=PerLevel[bool](levels=_attends(config), mid=True),
        num_res_blocks=config["layers_per_block"],
        context_dim=config["cross_attention_dim"],
        norm=NormSpec(groups=config["norm_num_groups"], eps=config["norm_eps"]),
        transformer=TransformerSpec(
            order=_order(network),
            num_heads=PerLevel[int](everywhere=heads) if isinstance(heads, int) else PerLevel[int](levels=tuple(heads)),
            spatial=_spatial(config, network),
            temporal=PerLevel[TemporalSpec](everywhere=_temporal(network)),
            before=PerLevel[TemporalSpec](everywhere=TemporalConvBlockSpec() if upscales else NoTemporalSpec()),
            projection="linear" if config["use_linear_projection"] else "conv",
        ),
        after_level=_after_level(config) if upscales else PerLevel[TemporalSpec](everywhere=NoTemporalSpec()),
        conditioners=_conditioners(config, network),
    )


_DEFAULTS: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "cross_attention_dim": 1280,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "use_linear_projection": False,
    "only_cross_attention": False,
}
_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "class_embed_type": None,
    "addition_embed_type": None,
    "encoder_hid_dim": None,
    "transformer_layers_per_block": 1,
    "dual_cross_attention": False,
    "cross_attention_norm": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "num_attention_heads": None,
    "video_condition": False,
}
"""Fields of the configuration that change numbers, and the one value that this network knows."""


def _attends(config: Mapping[str, Any]) -> tuple[bool, ...]:
    """Tell which levels have transformers, the same ones on the way down and up."""
    down, up = (
        [name.removeprefix("CrossAttn").removesuffix(f"{way}Block2D").removesuffix(f"{way}Block3D") for name in names]
        for way, names in (("Down", config["down_block_types"]), ("Up", config["up_block_types"]))
    )
    mid = config.get("mid_block_type") or "UNetMidBlock2DCrossAttn"
    attends = [tuple(name.startswith("CrossAttn") for name in config[f"{way}_block_types"]) for way in ("down", "up")]
    if any(down + up) or attends[0] != attends[1][::-1] or not mid.endswith("DCrossAttn"):
        blocks = ", ".join((*config["down_block_types"], mid, *config["up_block_types"]))
        raise WeightsError(f"a network of the blocks {blocks} cannot be built, only of mirrored (CrossAttn)Down and Up")
    return attends[0]


def _order(network: str) -> tuple[Sublayer, ...]:
    match network:
        case "interpolation":
            return "spatial", "text", "feed_forward", "temporal"
        case "image":
            return "spatial", "text", "feed_forward"
        case _:
            return "spatial", "text", "temporal", "feed_forward"


def _temporal(network: str) -> TemporalSpec:
    if network == "image":
        return NoTemporalSpec()
    if network == "interpolation":
        return TemporalAttentionSpec()
    return TemporalAttentionSpec(position=RotarySpec(dim=32), bias=RelativeBiasSpec(num_buckets=32, max_distance=32))


def _after_level(config: Mapping[str, Any]) -> PerLevel[TemporalSpec]:
    """Put the temporal modules of super-resolution after the levels that have them, down and up alike."""
    count = len(config["block_out_channels"])
    down = set(config.get("down_temporal_idx", range(count)))
    up = {count - 1 - index for index in config.get("up_temporal_idx", range(count))}
    if down != up:
        raise WeightsError("a network with temporal modules at other levels on the way up than down cannot be built")
    module, none = SpatioTemporalBlockSpec(), NoTemporalSpec()
    return PerLevel[TemporalSpec](
        levels=tuple(module if level in down else none for level in range(count)),
        mid=module if config.get("mid_temporal", True) else none,
    )


def _spatial(config: Mapping[str, Any], network: str) -> PerLevel[SpatialSpec]:
    if config.get("use_first_frame", network == "interpolation"):
        return PerLevel[SpatialSpec](everywhere=SparseCausalAttentionSpec())
    only_text = config["only_cross_attention"]
    if isinstance(only_text, bool):
        only_text = [only_text] * len(config["block_out_channels"])
    if not any(only_text):
        return PerLevel[SpatialSpec](everywhere=SpatialAttentionSpec())
    levels = tuple(TextAttentionSpec() if text else SpatialAttentionSpec() for text in only_text)
    return PerLevel[SpatialSpec](levels=levels, mid=SpatialAttentionSpec())


def _conditioners(config: Mapping[str, Any], network: str) -> tuple[ConditionerSpec, ...]:
    extra, levels = config["in_channels"] - config["out_channels"], config.get("num_class_embeds")
    if extra < 0 or (network == "upscaling" and levels is None):
        raise WeightsError("a network without its further inputs (in_channels, num_class_embeds) cannot be built")
    parts: list[ConditionerSpec] = []
    if extra:
        parts.append(ConcatSpec(name="frames" if levels is None else "low_res", channels=extra))
    if levels is not None:
        highest = config.get("max_noise_level", 350 if network == "upscaling" else levels)
        parts.append(NoiseLevelSpec(num_levels=levels, max_level=min(highest, levels - 1)))
    return tuple(parts)
