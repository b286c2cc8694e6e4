"""The `config.json` beside published weights: compared with the spec when reading, written when writing back.

Shapes do not tell everything: the number of heads, the epsilons and the scaling factor are in the configuration only.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lavie.blocks.autoencoder import AutoencoderKLSpec
from lavie.blocks.base import ConditionerSpec
from lavie.blocks.conditioning import NoiseLevelSpec
from lavie.blocks.spatial import TextAttentionSpec
from lavie.blocks.text import ClipTextSpec
from lavie.blocks.unet import UNetSpec
from lavie.errors import WeightsError
from lavie.spec import Spec
from lavie.weights import clip, kl, unet
from lavie.weights.inflate import without_time
from lavie.weights.source import Part

_COMPARED: dict[Part, tuple[str, ...]] = {
    "denoiser": ("out_channels", "channels", "num_res_blocks", "context_dim", "norm"),
    "autoencoder": ("channels", "num_res_blocks", "latent_channels", "scaling_factor", "norm_groups", "attention"),
    "text_encoder": ("width", "num_layers", "num_heads", "activation", "max_tokens"),
}


def check_config(part: Part, config: Mapping[str, Any], spec: Spec) -> None:
    """Refuse weights whose configuration describes another network than `spec`.

    Raises:
        WeightsError: naming the first field that differs, and both values.
    """
    try:
        other = _READERS[part](config)
    except WeightsError as error:
        raise WeightsError(f"config.json: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"config.json does not describe a {part}: {type(error).__name__} {error}") from None
    pairs = [(name, getattr(other, name), getattr(spec, name)) for name in _COMPARED[part]]
    if isinstance(spec, UNetSpec) and isinstance(other, UNetSpec):
        pairs.append(("number of heads", _heads(other), _heads(spec)))
        pairs.append(("projection", other.transformer.projection, spec.transformer.projection))
    for name, found, wanted in pairs:
        if found != wanted:
            raise WeightsError(f"config.json says {name} {_plain(found)}, the spec {_plain(wanted)}")


_READERS: dict[Part, Callable[[Mapping[str, Any]], Spec]] = {
    "denoiser": lambda config: unet.spec_from_config(config, "image"),
    "autoencoder": kl.spec_from_config,
    "text_encoder": clip.spec_from_config,
}


def _heads(spec: UNetSpec) -> list[int]:
    heads = spec.transformer.num_heads
    return [heads.at(level) for level in range(len(spec.channels))]


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, Spec) else value


def config_of(part: Part, spec: Spec) -> dict[str, Any]:
    """Return the configuration of the network that a spec builds, under the names of the published ones."""
    match spec:
        case UNetSpec():
            return _of_unet(spec)
        case AutoencoderKLSpec():
            return _of_kl(spec)
        case ClipTextSpec():
            return _of_clip(spec)
    raise WeightsError(f"{part}: no published configuration describes it")


def _of_unet(spec: UNetSpec) -> dict[str, Any]:
    levels = range(len(spec.channels))
    dimensions = "2D" if spec == without_time(spec) else "3D"
    heads = _heads(spec)
    only_text = [isinstance(spec.transformer.spatial.at(level), TextAttentionSpec) for level in levels]
    down = [f"{'CrossAttn' if spec.attention.at(level) else ''}DownBlock{dimensions}" for level in levels]
    config: dict[str, Any] = {
        "_class_name": f"UNet{dimensions}ConditionModel",
        "in_channels": spec.in_channels + sum(_extra_channels(each) for each in spec.conditioners),
        "out_channels": spec.out_channels,
        "down_block_types": down,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        "block_out_channels": [*spec.channels],
        "layers_per_block": spec.num_res_blocks,
        "cross_attention_dim": spec.context_dim,
        "attention_head_dim": heads[0] if len(set(heads)) == 1 else heads,
        "norm_num_groups": spec.norm.groups,
        "norm_eps": spec.norm.eps,
        "use_linear_projection": spec.transformer.projection == "linear",
        "only_cross_attention": only_text if any(only_text) else False,
        "act_fn": "silu",
        "center_input_sample": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
    }
    levels_of_noise = [each.num_levels for each in spec.conditioners if isinstance(each, NoiseLevelSpec)]
    return config | ({"num_class_embeds": levels_of_noise[0]} if levels_of_noise else {})


def _extra_channels(spec: ConditionerSpec) -> int:
    return int(getattr(spec, "channels", 0))


def _of_kl(spec: AutoencoderKLSpec) -> dict[str, Any]:
    num_levels = len(spec.channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * num_levels,
        "up_block_types": ["UpDecoderBlock2D"] * num_levels,
        "block_out_channels": [*spec.channels],
        "layers_per_block": spec.num_res_blocks,
        "latent_channels": spec.latent_channels,
        "norm_num_groups": spec.norm_groups,
        "scaling_factor": spec.scaling_factor,
        "mid_block_add_attention": spec.attention,
        "act_fn": "silu",
    }


def _of_clip(spec: ClipTextSpec) -> dict[str, Any]:
    vocab_size = spec.vocab_size
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": spec.width,
        "intermediate_size": 4 * spec.width,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "max_position_embeddings": spec.max_tokens,
        "vocab_size": spec.tokenizer.build().vocab_size if vocab_size is None else vocab_size,
        "hidden_act": spec.activation,
        "layer_norm_eps": 1e-5,
    }
