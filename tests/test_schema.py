"""JSON Schema: complete, valid, and of one mind with the loader."""

from typing import Any

import jsonschema
import pytest
from packages import healthy
from test_registry import module

import lavie.builtin
from lavie.registry import Registry
from lavie.schema import json_schema
from lavie.spec import dump
from lavie.specfile import load_document, load_spec, shipped

REGISTRY = Registry(lavie.builtin)


def validator(kind: str, registry: Registry = REGISTRY) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema(kind, registry))


@pytest.mark.parametrize("kind", REGISTRY.kinds())
def test_every_kind_has_a_valid_schema_that_knows_all_its_components(kind: str) -> None:
    schema = json_schema(kind, REGISTRY)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert {f"{kind}.{name}" for name in REGISTRY.components(kind)} <= set(schema["$defs"])
    assert "x-lavie-kind" not in str(schema)


def test_every_reference_leads_somewhere() -> None:
    schema = json_schema("stage", REGISTRY)

    def references(node: Any) -> set[str]:
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        own = {node["$ref"]} if isinstance(node, dict) and "$ref" in node else set()
        return own.union(*map(references, children))

    assert references(schema) == {f"#/$defs/{name}" for name in schema["$defs"]}


@pytest.mark.parametrize("name", shipped())
def test_shipped_specs_and_their_dumps_are_valid(name: str) -> None:
    spec = load_spec(name, REGISTRY)
    schema = validator(spec.kind)
    schema.validate(dump(spec))
    schema.validate(load_document(name))


@pytest.mark.parametrize(
    "document",
    [
        {"type": "unet", "channels": [320, 640], "attention": [True, False]},
        {"type": "unet", "attention": {"levels": [True], "mid": False}, "resblock": "inflated"},
        {"type": "unet", "resblock": ["inflated", {"type": "modulated"}], "transformer": {"temporal": "none"}},
        {"extends": "base", "denoiser.channels": [1]},
    ],
)
def test_short_forms_are_valid(document: dict[str, Any]) -> None:
    validator("denoiser").validate(document)


@pytest.mark.parametrize(
    "document",
    [
        {"channels": [320]},
        {"type": "unet", "channel": [320]},
        {"type": "unet", "channels": [10**9]},
        {"type": "unet", "resblock": "unknown"},
        {"type": "unet", "resblock": {}},
        {
            "type": "unet",
            "transformer": {"temporal": {"type": "attention", "position": {"type": "rope", "dim": "big"}}},
        },
        "unet",
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(document: Any) -> None:
    assert not validator("denoiser").is_valid(document)


def test_fields_carry_their_help_and_components_their_package() -> None:
    definitions = json_schema("denoiser", REGISTRY)["$defs"]
    assert "conv" in definitions["kind.temporal"]["anyOf"][0]["enum"]
    rope = definitions["position.rope"]
    assert "(lavie" in rope["description"]
    assert rope["properties"]["dim"]["description"].startswith("Channels of each head")


def test_installed_plugins_are_completed_too() -> None:
    registry = Registry(lavie.builtin, module("lavie-extra", healthy("extra")))
    assert validator("denoiser", registry).is_valid({"type": "unet", "transformer": {"temporal": "extra"}})
    assert not validator("denoiser").is_valid({"type": "unet", "transformer": {"temporal": "extra"}})
