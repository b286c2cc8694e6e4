"""Weights of CLIP's text encoder under OpenCLIP's names, as Stable Diffusion 2 and the ×4 upscaler descend from."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lavie.blocks.text import ClipTextSpec
from lavie.weights.keymap import KeyMap, Rule, under
from lavie.weights.layout import Layout

_LAYER = (
    Rule("norm1.{leaf}", "ln_1.{leaf}"),
    Rule("attention.query.{leaf}", "attn.q_proj.{leaf}"),
    Rule("attention.key.{leaf}", "attn.k_proj.{leaf}"),
    Rule("attention.value.{leaf}", "attn.v_proj.{leaf}"),
    Rule("attention.out.{leaf}", "attn.out_proj.{leaf}"),
    Rule("norm2.{leaf}", "ln_2.{leaf}"),
    Rule("expand.{leaf}", "mlp.c_fc.{leaf}"),
    Rule("contract.{leaf}", "mlp.c_proj.{leaf}"),
)
_RULES = (
    Rule("token_embedding.weight", "token_embedding.weight"),
    Rule("position_embedding.weight", "positional_embedding"),
    *under("layers.{i}.", "transformer.resblocks.{i}.", _LAYER),
    Rule("final_norm.{leaf}", "ln_final.{leaf}"),
)
_JOINED = re.compile(r"(?P<place>.*\.attn\.)in_proj_(?P<leaf>weight|bias)")
_APART = re.compile(r"(?P<place>.*\.attn\.)(?P<name>[qkv])_proj\.(?P<leaf>weight|bias)")


def _cut(key: str, tensor: Tensor) -> Mapping[str, Tensor]:
    match = _JOINED.fullmatch(key)
    if match is None or tensor.ndim == 0 or len(tensor) % 3:
        return {key: tensor}
    thirds = zip("qkv", tensor.chunk(3), strict=True)
    return {f"{match['place']}{name}_proj.{match['leaf']}": third for name, third in thirds}


def _join(file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for key, tensor in file.items():
        match = _APART.fullmatch(key)
        if match is None:
            joined[key] = tensor
        elif match["name"] == "q":
            thirds = [file[f"{match['place']}{name}_proj.{match['leaf']}"] for name in "qkv"]
            joined[f"{match['place']}in_proj_{match['leaf']}"] = torch.cat(thirds)
    return joined


def clip_layout(spec: ClipTextSpec) -> Layout:
    """Return the layout of a text encoder whose queries, keys and values are joined in one tensor.

    Stable Diffusion 2 uses the last layer but one, so a file may have one layer more than the spec.
    """
    idle = {
        r"visual\..*": "belongs to the image encoder",
        r"text_projection|logit_scale|logit_bias": "used in training the text encoder only",
        r"attn_mask": "a constant of the code",
        rf"transformer\.resblocks\.{spec.num_layers}\..*": "the last layer, which comes after the one that is used",
    }
    return Layout("openclip", KeyMap(_RULES), _cut, _join, idle)
