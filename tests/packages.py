"""Fake installed packages: a module and the metadata folder that an installer would write."""

from collections.abc import Sequence
from pathlib import Path

COMPONENT = """
from typing import Literal
from lavie import Spec, hookimpl
from lavie.blocks import Site, TemporalSpec

class {cls}(TemporalSpec):
    type: Literal["{name}"] = "{name}"

    def build(self, site: Site) -> None:
        return None
"""
HOOK = """
@hookimpl
def lavie_components():
    return [{classes}]
"""


def healthy(*names: str) -> str:
    """Return the source of a plugin with temporal components of these names."""
    classes = [f"Layer{index}Spec" for index in range(len(names))]
    bodies = [COMPONENT.format(cls=cls, name=name) for cls, name in zip(classes, names, strict=True)]
    return "".join(bodies) + HOOK.format(classes=", ".join(classes))


def light(kind: str, name: str) -> str:
    """Return the source of a plugin that imports no torch: one component of a kind that it defines itself."""
    body = f"""
from typing import ClassVar, Literal
from lavie import Spec, hookimpl

class KindSpec(Spec):
    kind: ClassVar[str] = "{kind}"

class ThingSpec(KindSpec):
    type: Literal["{name}"] = "{name}"
"""
    return body + HOOK.format(classes="ThingSpec")


def install(
    folder: Path,
    name: str,
    source: str | None,
    *,
    entry_point: str = "",
    version: str = "1.0",
    requires: Sequence[str] = (),
    metadata: str | None = None,
) -> None:
    """Write a package `name` whose module holds `source` (None: there is no such module)."""
    module = name.replace("-", "_")
    if source is not None:
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    text += "".join(f"Requires-Dist: {line}\n" for line in requires)
    (info / "METADATA").write_text(text if metadata is None else metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[lavie]\n{entry_point or name} = {module}\n", encoding="utf-8")
