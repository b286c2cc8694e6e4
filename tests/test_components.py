"""A table over everything that is registered: a new component is tested the moment it is in `builtin.py`."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from small_parts import BASE, CASCADE, INTERPOLATION, UPSCALING
from torch import Tensor

import lavie.builtin
from lavie.registry import Registry
from lavie.spec import Spec, dump
from lavie.specfile import load_spec
from lavie.testing import check_component

REGISTRY = Registry(lavie.builtin)
EVERY = [(kind, name) for kind in REGISTRY.kinds() for name in REGISTRY.components(kind)]
VIDEO_INPUT = torch.zeros(2, 4, 4, 8, 8)
INPUTS: dict[tuple[str, str], Mapping[str, Tensor]] = {
    ("conditioner", "concat"): {"frames": VIDEO_INPUT},
    ("conditioner", "noise_level"): {"noise_level": torch.tensor([3, 40])},
}
SHAPES = {"type": "shapes", "num_frames": 2, "height": 16, "width": 16}
PATTERNS = ["none", "first", "first_and_last", "beginning", "all"]
TINY = dump(load_spec("base-tiny", REGISTRY))
SMALLER: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("autoencoder", "kl"): [{"channels": [8, 16], "num_res_blocks": 1, "norm_groups": 4, "attention": False}],
    ("dataset", "head"): [{"clips": SHAPES}],
    ("dataset", "crop"): [{"clips": SHAPES, "height": 8, "width": 8}],
    ("denoiser", "unet"): [
        {"channels": [16, 32], "attention": True, "norm": {"groups": 8}, "context_dim": 8, "num_res_blocks": 1}
        | {"transformer": {"num_heads": 1, "temporal": {"type": "attention", "position": {"type": "rope", "dim": 8}}}}
    ],
    ("text_encoder", "clip"): [TINY["text_encoder"]],
    ("stage", "latent_diffusion"): [TINY, BASE, INTERPOLATION, UPSCALING],
    ("stage", "cascade"): [CASCADE],
    ("source", "given_frames"): [
        {},
        INTERPOLATION["source"],
        {"posterior": "sample", "patterns": PATTERNS},
    ],
    ("source", "low_res"): [UPSCALING["source"], {"factor": 2, "schedule": "flow"}],
}
"""Settings to check a component with whose defaults are too big to run, or missing."""


def variants(kind: str, name: str) -> list[Spec]:
    fields = REGISTRY.components(kind)[name].cls.model_fields.values()
    default = [] if any(field.is_required() for field in fields) else [{}]
    return [
        REGISTRY.load(REGISTRY.kind(kind), {**settings, "type": name})
        for settings in SMALLER.get((kind, name), default)
    ]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_component_keeps_the_contract_of_its_kind(kind: str, name: str) -> None:
    specs = variants(kind, name)
    if not specs and kind in {"recipe", "phase"}:
        pytest.skip("has fields without defaults; the shipped recipes load it")
    assert specs, f"{kind} {name} has fields without defaults: add settings to SMALLER"
    for spec in specs:
        check_component(spec, inputs=INPUTS.get((kind, name)))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_component_explains_itself(kind: str, name: str) -> None:
    cls = REGISTRY.components(kind)[name].cls
    assert cls.__doc__, f"{cls.__name__} has no docstring"
    silent = [key for key, field in cls.model_fields.items() if key != "type" and not _is_told(field)]
    assert not silent, f"fields without help below them: {', '.join(silent)}"


def _is_told(field: Any) -> bool:
    is_group = isinstance(field.annotation, type) and issubclass(field.annotation, Spec)
    return bool(field.description) or (is_group and bool(field.annotation.__doc__))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_number_of_a_component_is_bounded_below(kind: str, name: str) -> None:
    """So that nonsense is refused before anything is allocated."""
    properties = REGISTRY.components(kind)[name].cls.model_json_schema()["properties"]
    free = [key for key, schema in properties.items() if _is_free(schema)]
    assert not free, f"numbers without bounds: {', '.join(free)}"


def _is_free(schema: dict[str, Any]) -> bool:
    choices = schema.get("anyOf", [schema])
    numbers = [choice for choice in choices if choice.get("type") in {"integer", "number"}]
    return any("minimum" not in number and "exclusiveMinimum" not in number for number in numbers)
