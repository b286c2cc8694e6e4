"""JSON Schema of any kind, installed plugins included, so that editors complete and check spec files."""

from typing import Any

from pydantic.json_schema import models_json_schema

from lavie.registry import Registry
from lavie.spec import KIND_IN_SCHEMA

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: str, registry: Registry) -> dict[str, Any]:
    """Return the schema of a document whose root is a component of `kind`, or extends one.

    Raises:
        SpecError: if there is no such kind.
    """
    registry.kind(kind)
    definitions: dict[str, Any] = {}
    waiting = [kind]
    while waiting:
        name = waiting.pop()
        if _place(name) not in definitions:
            definitions |= _kind_definitions(name, registry)
            waiting += sorted(_kinds_in(definitions))
    root = {"$schema": DIALECT, "title": f"lavie {kind}", "anyOf": [_mappings(kind, registry), _EXTENDING]}
    return {**root, "$defs": _reachable(root, _linked(definitions))}


_DEFS = "#/$defs/"
_EXTENDING = {
    "type": "object",
    "description": "A spec that builds on another: every other key is a dotted path into it.",
    "properties": {"extends": {"type": "string", "description": "Name of a shipped spec, or path of a spec file."}},
    "required": ["extends"],
}


def _place(kind: str) -> str:
    return f"kind.{kind}"


def _component(kind: str, name: str) -> str:
    return f"{kind}.{name}"


def _mappings(kind: str, registry: Registry) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"{_DEFS}{_component(kind, name)}"} for name in registry.components(kind)]}


def _kind_definitions(kind: str, registry: Registry) -> dict[str, Any]:
    """Define a kind (a name, or one component's mapping) and each of its components."""
    components = registry.components(kind)
    classes = [(component.cls, "validation") for component in components.values()]
    schemas, shared = models_json_schema(classes, ref_template=f"{_DEFS}{kind}:{{model}}")  # type: ignore[arg-type]
    definitions = {f"{kind}:{name}": schema for name, schema in shared.get("$defs", {}).items()}
    for name, component in components.items():
        body = schemas[component.cls, "validation"]
        body = definitions[str(body["$ref"]).removeprefix(_DEFS)] if "$ref" in body else body
        definitions[_component(kind, name)] = _named(body, str(component.owner))
    names = {"enum": list(components), "description": f"A {kind} with its default settings."}
    definitions[_place(kind)] = {"anyOf": [names, _mappings(kind, registry), _EXTENDING]}
    return definitions


def _named(body: dict[str, Any], owner: str) -> dict[str, Any]:
    """Require `type`, and tell where a component comes from."""
    required = ["type", *(name for name in body.get("required", []) if name != "type")]
    return {**body, "description": f"{body.get('description', '')} ({owner})".strip(), "required": required}


def _kinds_in(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_kinds_in, node))
    if not isinstance(node, dict):
        return set()
    found = {node[KIND_IN_SCHEMA]} if KIND_IN_SCHEMA in node else set()
    return found.union(*map(_kinds_in, node.values()))


def _linked(node: Any) -> Any:
    """Replace the placeholders of kinds by references to their definitions."""
    if isinstance(node, list):
        return [_linked(item) for item in node]
    if not isinstance(node, dict):
        return node
    linked = {key: _linked(value) for key, value in node.items() if key != KIND_IN_SCHEMA}
    return {**linked, "$ref": f"{_DEFS}{_place(node[KIND_IN_SCHEMA])}"} if KIND_IN_SCHEMA in node else linked


def _reachable(root: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Keep the definitions that the root needs, directly or through others."""
    kept: dict[str, Any] = {}
    waiting = _references(root)
    while waiting:
        name = waiting.pop()
        kept[name] = definitions[name]
        waiting |= _references(kept[name]) - set(kept)
    return dict(sorted(kept.items()))


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"].removeprefix(_DEFS)} if isinstance(node.get("$ref"), str) else set()
    return own.union(*map(_references, node.values()))
