"""`lavie schema`: JSON Schema of a kind, with whatever is installed."""

import json

from lavie.cli.app import DONE, say
from lavie.registry import installed
from lavie.schema import json_schema


def schema(kind: str | None = None, /) -> int:
    """Print the JSON Schema of a kind, for editors.

    It knows the components of the installed plugins. Without a kind, the kinds are listed with their components.
    Editors with the YAML language server use it through a first line in the spec file:
    # yaml-language-server: $schema=stage.json

    Parameters
    ----------
    kind
        The kind of component that stands at the root of the document, such as stage.
    """
    registry = installed()
    if kind is None:
        for name in registry.kinds():
            say(f"{name}: {', '.join(registry.components(name))}")
    else:
        say(json.dumps(json_schema(kind, registry), indent=2, ensure_ascii=False))
    return DONE
