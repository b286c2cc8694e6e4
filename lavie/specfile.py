"""Spec files: found by name or path, built on one another by `extends`, changed by dotted overrides.

In a file with `extends: name-or-path`, every other key is a dotted path into the spec it extends, and its value
replaces the node there whole. An override `path=value` does the same from the command line.
"""

from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

from lavie.document import MAX_BYTES, Document, Path, parse
from lavie.errors import Fault, SpecError
from lavie.faults import suggest
from lavie.registry import Registry, installed
from lavie.spec import Spec, dump
from lavie.tree import Tree, put, split_path

SPECS = File(__file__).parent / "specs"
MAX_EXTENDS_DEPTH = 8
MAX_EXTENDS = 64


def shipped() -> list[str]:
    """Return the names of the specs that ship with lavie."""
    return sorted(file.stem for file in SPECS.glob("*.yaml"))


def find_spec(name_or_path: str, folder: File | None = None) -> File:
    """Return the file of a shipped spec's name, or of a path (relative to `folder`, or to the working directory).

    Raises:
        SpecError: if there is neither, naming what ships and what is near.
    """
    looks_like_path = "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith((".yaml", ".yml", ".json"))
    if not looks_like_path and name_or_path in shipped():
        return SPECS / f"{name_or_path}.yaml"
    try:
        file = (folder or File()) / File(name_or_path).expanduser()
        if file.is_file():
            return file
        fault = "is no regular file" if file.exists() else "no such file"
    except (OSError, ValueError, RuntimeError) as error:
        fault = f"cannot be opened: {error}".removesuffix(".")
    hint = "" if looks_like_path else suggest(name_or_path, shipped())
    fault = f"spec {name_or_path!r:.200}: {fault}.{hint} Shipped: {', '.join(shipped()) or 'none'}."
    raise SpecError([Fault("", fault)])


def read_document(file: File) -> Document:
    """Read one file through the gate.

    Raises:
        SpecError: if it cannot be read, or is not accepted.
    """
    name = file.name if file.parent == SPECS else str(file)
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError([Fault("", f"cannot be read: {error.strerror or error}")], name) from None
    document = parse(text, name)
    if not isinstance(document.data, dict):
        raise SpecError([Fault("", f"a spec is a mapping of keys to values, got {document.data!r:.80}")], name)
    return document


def load_document(name_or_path: str) -> dict[str, Any]:
    """Return what a spec file says, as plain data, with nothing resolved.

    Raises:
        SpecError: if it cannot be found, read or accepted.
    """
    data: dict[str, Any] = read_document(find_spec(name_or_path)).data
    return data


def load_spec(
    name_or_path: str | File, registry: Registry | None = None, overrides: Sequence[str] = (), kind: str = ""
) -> Spec:
    """Return the spec of a shipped name or a file, with `path=value` overrides applied in their order.

    `kind` is found from the document's `type` if it is not given; a stage goes first where several kinds know it.

    Raises:
        SpecError: listing every fault with its file, line and path.
    """
    resolver = _Resolver(registry or installed())
    tree = resolver.file(find_spec(str(name_or_path)), ())
    return resolver.changed(tree, overrides, kind)


def change_spec(spec: Spec, overrides: Sequence[str], registry: Registry | None = None) -> Spec:
    """Return a spec with `path=value` overrides applied in their order.

    Raises:
        SpecError: listing every fault with its path.
    """
    resolver = _Resolver(registry or installed())
    return resolver.changed(Tree(dump(spec), {}, ""), overrides, spec.kind)


class _Resolver:
    """Works out `extends` and overrides, each base file once."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._bases: dict[File, Tree] = {}
        self._extends = 0

    def file(self, file: File, chain: tuple[File, ...]) -> Tree:
        """Return what a file says, with every `extends` in it worked out."""
        document = read_document(file)
        return self._expand(document, document.data, (), (*chain, file.resolve()))

    def spec(self, tree: Tree, kind: str = "") -> Spec:
        """Turn a tree into a spec; faults tell where their values come from."""
        try:
            return self.registry.load(self.registry.kind(kind or self._kind(tree.data)), tree.data)
        except SpecError as error:
            placed = [Fault(fault.path, fault.message, tree.where_of(fault.path)) for fault in error.faults]
            raise SpecError(placed) from None

    def whole(self, tree: Tree, kind: str = "") -> Tree:
        """Return the same spec with no field left out, so that every path exists."""
        return Tree(dump(self.spec(tree, kind)), tree.origins, tree.source)

    def changed(self, tree: Tree, overrides: Sequence[str], kind: str) -> Spec:
        """Apply overrides in their order, and turn what comes out into a spec; faulty ones are told together."""
        faults: list[Fault] = []
        if overrides:
            tree = self.whole(tree, kind)
        for text in overrides:
            try:
                tree = self.override(tree, text, kind)
            except SpecError as error:
                faults += _placed(error)
        return self._told(tree, kind, faults)

    def _told(self, tree: Tree, kind: str, faults: Sequence[Fault]) -> Spec:
        """Turn a tree into a spec; faults that were found on the way are told before those of the spec itself."""
        try:
            spec = self.spec(tree, kind)
        except SpecError as error:
            raise SpecError([*faults, *error.faults]) if faults else error from None
        if faults:
            raise SpecError(faults)
        return spec

    def override(self, tree: Tree, text: str, kind: str) -> Tree:
        """Apply one `path=value`."""
        path, equals, value = text.partition("=")
        source = f"--set {path.strip()}"
        if not equals or not path.strip():
            raise SpecError([Fault("", "an override reads path=value")], f"--set {text!r:.80}")
        if not value.strip():
            raise SpecError([Fault("", "has no value; write null or '' for nothing")], source)
        document = parse(value, source)
        value_tree = Tree(document.data, dict.fromkeys(document.lines, "--set"), "--set")
        return self._put(tree, split_path(path.strip()), value_tree, kind)

    def _put(self, tree: Tree, path: Path, value: Tree, kind: str) -> Tree:
        try:
            put(tree, path, value)
        except SpecError as error:
            try:  # an earlier value may be a bare name, whose fields appear once it is resolved
                tree = self.whole(tree, kind)
            except SpecError:
                raise error from None
            put(tree, path, value)
        return tree

    def _expand(self, document: Document, node: Any, at: Path, chain: tuple[File, ...]) -> Tree:
        """Return one node of a document with every `extends` below it worked out."""
        tree = Tree(node, {(): document.where(at)}, document.source)
        if isinstance(node, dict) and "extends" in node:
            tree = self._base(document, node["extends"], (*at, "extends"), chain)
            faults: list[Fault] = []
            for key in [key for key in node if key != "extends"]:
                try:
                    value = self._expand(document, node[key], (*at, key), chain)
                    tree = self._put(tree, split_path(key), value, "")
                except SpecError as error:
                    faults += _placed(error)
            if faults:
                self._told(tree, "", faults)
        elif isinstance(node, dict | list):
            tree.data = {} if isinstance(node, dict) else [None] * len(node)
            for part in node if isinstance(node, dict) else range(len(node)):
                child = self._expand(document, node[part], (*at, part), chain)
                tree.data[part] = child.data
                tree.origins |= {(part, *path): where for path, where in child.origins.items()}
        return tree

    def _base(self, document: Document, name: Any, at: Path, chain: tuple[File, ...]) -> Tree:
        """Return the whole spec that an `extends` names."""
        where = document.where(at)
        self._extends += 1
        if not isinstance(name, str):
            raise SpecError([Fault("extends", f"must be the name or path of a spec, got {name!r:.80}")], where)
        if len(chain) > MAX_EXTENDS_DEPTH or self._extends > MAX_EXTENDS:
            limits = f"{MAX_EXTENDS_DEPTH} deep or {MAX_EXTENDS} in all"
            raise SpecError([Fault("extends", f"more than {limits} are not followed")], where)
        try:
            file = find_spec(name, chain[-1].parent)
        except SpecError as error:
            raise SpecError([Fault("extends", str(fault)) for fault in error.faults], where) from None
        key = file.resolve()
        if key in chain:
            loop = " → ".join(each.name for each in (*chain[chain.index(key) :], key))
            raise SpecError([Fault("extends", f"runs in a circle: {loop}")], where)
        if key not in self._bases:
            self._bases[key] = self.whole(self.file(file, chain))
        return self._bases[key].copy()

    def _kind(self, data: Any) -> str:
        """Return the kind that the document's type belongs to."""
        name = data.get("type")
        kinds = self.registry.kinds_of(name) if isinstance(name, str) else []
        if "stage" in kinds or not kinds:
            return "stage"
        if len(kinds) > 1:
            raise SpecError([Fault("type", f"{name!r} names several kinds: {', '.join(kinds)}; say which")])
        return kinds[0]


def _placed(error: SpecError) -> list[Fault]:
    """Return the faults of an error, each with where it is."""
    return [Fault(fault.path, fault.message, fault.where or error.source) for fault in error.faults]
