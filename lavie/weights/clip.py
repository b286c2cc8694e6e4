"""Weights and configurations of CLIP's text encoder, under the names that published files use."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lavie.blocks.text import ClipTextSpec
from lavie.blocks.tokenizer import CLIP_VOCAB_SIZE, ClipBpeSpec, TokenizerSpec, WordsSpec
from lavie.errors import WeightsError
from lavie.weights.keymap import Derived, KeyMap, Rule, under

_LAYER = (
    Rule("norm1.{leaf}", "layer_norm1.{leaf}"),
    Rule("attention.query.{leaf}", "self_attn.q_proj.{leaf}"),
    Rule("attention.key.{leaf}", "self_attn.k_proj.{leaf}"),
    Rule("attention.value.{leaf}", "self_attn.v_proj.{leaf}"),
    Rule("attention.out.{leaf}", "self_attn.out_proj.{leaf}"),
    Rule("norm2.{leaf}", "layer_norm2.{leaf}"),
    Rule("expand.{leaf}", "mlp.fc1.{leaf}"),
    Rule("contract.{leaf}", "mlp.fc2.{leaf}"),
)
_RULES = (
    Rule("token_embedding.weight", "embeddings.token_embedding.weight"),
    Rule("position_embedding.weight", "embeddings.position_embedding.weight"),
    *under("layers.{i}.", "encoder.layers.{i}.", _LAYER),
    Rule("final_norm.{leaf}", "final_layer_norm.{leaf}"),
)


def _position_ids(table: Tensor) -> Tensor:
    return torch.arange(len(table), device=table.device).unsqueeze(0)


def clip_map(prefix: str = "text_model.") -> KeyMap:
    """Return the map of the text encoder's names; files may lack the prefix and the position ids."""
    position_ids = Derived("embeddings.position_ids", beside="position_embedding.weight", value=_position_ids)
    return KeyMap(_RULES, derived=(position_ids,), prefix=prefix)


def spec_from_config(config: Mapping[str, Any], tokenizer: TokenizerSpec | None = None) -> ClipTextSpec:
    """Turn the configuration of a published text encoder (`CLIPTextModel`) into a spec.

    The configuration does not say how prompts are padded: give the tokenizer where that is not Stable Diffusion 1's
    way. One with a vocabulary other than CLIP's gets a tokenizer without words, good for token numbers only.

    Raises:
        WeightsError: if it describes a network that this one is not.
    """
    width, vocab_size = config["hidden_size"], config["vocab_size"]
    for name, value in {"intermediate_size": 4 * width, "layer_norm_eps": 1e-5}.items():
        if config.get(name, value) != value:
            raise WeightsError(f"a text encoder with {name} = {config[name]!r} cannot be built, only with {value!r}")
    if tokenizer is None:
        tokenizer = ClipBpeSpec() if vocab_size == CLIP_VOCAB_SIZE else WordsSpec()
    return ClipTextSpec(
        width=width,
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        activation=config["hidden_act"],
        vocab_size=vocab_size,
        max_tokens=config["max_position_embeddings"],
        tokenizer=tokenizer,
    )
