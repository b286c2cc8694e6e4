"""`lavie show`: what a spec builds, drawn as a tree."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from lavie.cli.app import DONE, Whole, say
from lavie.document import write
from lavie.registry import installed
from lavie.spec import dump
from lavie.specfile import load_spec


def show(
    spec: str,
    /,
    *,
    settings: Annotated[list[str] | None, Parameter(name="--set")] = None,
    kind: str | None = None,
    yaml: bool = False,
    depth: Annotated[Whole, Parameter(validator=Number(gte=0))] = 2,
) -> int:
    """Draw what a spec builds: parts, shapes, parameters, packages.

    The first tree is the spec: each component with how often it is built, at which widths, with how many parameters,
    and the package it comes from. The second is the modules of each network with the shapes that flow out of them.

    Parameters
    ----------
    spec
        Name of a shipped spec, or path of a spec file.
    settings
        Change a value first: path=value. May be given several times.
    kind
        Kind of component that the file describes; found from its type if left out.
    yaml
        Print the resolved spec instead, every field written out; it can be loaded again.
    depth
        Levels of modules to draw; 0 for none.
    """
    registry = installed()
    loaded = load_spec(spec, registry, settings or (), kind or "")
    if yaml:
        say(write(dump(loaded)).rstrip())
        return DONE
    from rich.console import Console

    from lavie.cli.drawing import draw

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    for tree in draw(spec, loaded, registry, depth):
        console.print(tree)
    return DONE
