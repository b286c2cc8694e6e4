"""Plain data of a spec with the origin of every node, and putting values at dotted paths."""

import copy
import re
from dataclasses import dataclass
from typing import Any

from lavie.document import Path
from lavie.errors import Fault, SpecError
from lavie.faults import join_path, suggest

_STEP = re.compile(r"\.?([^.\[\]]+)|\[([0-9]{1,9})\]")


@dataclass
class Tree:
    """Plain data, and where its nodes come from (`file:line`, or the option), by path."""

    data: Any
    origins: dict[Path, str]
    source: str

    def where(self, path: Path) -> str:
        """Return the origin of a node, or of the nearest node above it."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, self.source)

    def where_of(self, path: str) -> str:
        """Return the origin of what a fault at `path` is about: of a component, its `type`."""
        steps = split_path(path)
        return self.where((*steps, "type") if (*steps, "type") in self.origins else steps)

    def copy(self) -> "Tree":
        """Return a tree that can be changed without changing this one."""
        return Tree(copy.deepcopy(self.data), dict(self.origins), self.source)


def split_path(text: str) -> Path:
    """Split `a.b[1].c` into its steps; an odd text is one step as it stands."""
    steps = list(_STEP.finditer(text))
    if "".join(step.group(0) for step in steps) != text or text.startswith("."):
        return (text,)
    return tuple(step.group(1) or int(step.group(2)) for step in steps)


def path_text(path: Path) -> str:
    """Write a path as users do."""
    text = ""
    for part in path:
        text = join_path(text, part)
    return text


def put(tree: Tree, path: Path, value: Tree) -> None:
    """Replace the node at `path` whole; a new `type` begins its node anew.

    Raises:
        SpecError: if a step of the path leads nowhere, with the nearest name there is; the tree is unchanged then.
    """
    node = tree.data
    taken: Path = ()
    for part in path[:-1]:
        step = _step(node, part, path, taken, value)
        node, taken = _value_at(node, step), (*taken, *step)
    step = _step(node, path[-1], path, taken, value, is_last=True)
    if step == ("type",) and node.get("type") != value.data:
        node.clear()
        _forget(tree, taken)
    node, taken = _value_at(node, step[:-1]), (*taken, *step)
    node[step[-1]] = copy.deepcopy(value.data)
    _forget(tree, taken)
    tree.origins[taken] = value.source
    tree.origins |= {(*taken, *below): where for below, where in value.origins.items()}


def _forget(tree: Tree, path: Path) -> None:
    for known in [known for known in tree.origins if known[: len(path)] == path]:
        del tree.origins[known]


def _value_at(node: Any, step: Path) -> Any:
    for part in step:
        node = node[part]
    return node


def _step(node: Any, part: str | int, path: Path, taken: Path, value: Tree, is_last: bool = False) -> Path:
    """Return the keys that lead from a node to one part of it: per-level lists may hide behind `levels`."""
    if isinstance(part, str) and part.isdecimal() and (isinstance(node, list) or "levels" in _keys(node)):
        part = int(part)
    if isinstance(part, int) and isinstance(node, dict) and isinstance(node.get("levels"), list):
        return ("levels", *_step(node["levels"], part, path, (*taken, "levels"), value))
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return (part,)
    if isinstance(node, dict) and isinstance(part, str) and (part in node or is_last):
        return (part,)
    raise SpecError([Fault(path_text(path), _nowhere(node, part, path, taken), value.where(()))])


def _nowhere(node: Any, part: str | int, path: Path, taken: Path) -> str:
    place = path_text(taken) or "the spec"
    if isinstance(node, list) and isinstance(part, int):
        return f"{place} has {len(node)} values, [0] to [{len(node) - 1}]"
    if isinstance(node, list):
        one = path_text((*taken, 0, *path[len(taken) :]))
        return f"{place} is a list of {len(node)}; name one of them, as in {one}"
    if isinstance(node, dict):
        return f"{place} has no {part!r}.{suggest(str(part), _keys(node))} Known: {', '.join(_keys(node))}."
    return f"{place} is {node!r:.80}, which has no parts; give it a whole value"


def _keys(node: Any) -> list[str]:
    return list(node) if isinstance(node, dict) else []
