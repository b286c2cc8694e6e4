"""The gate for text from outside: a small, safe part of YAML (JSON included), with the line of every value.

One walk over the parser's events, so that nothing is built from what is refused: no anchors, aliases or tags, no
duplicate keys, bounded size, depth and count. Scalars follow the YAML 1.2 core schema in decimal notation: `no`,
`012` and `1:30` mean what they look like.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import yaml

from lavie.errors import Fault, SpecError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_INT = 1 << 53
MAX_NUMBER_LENGTH = 64
MAX_KEY_LENGTH = 256

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the root of a document to one of its nodes."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """What a text says, and the line on which each of its nodes begins."""

    data: Any
    source: str
    lines: dict[Path, int] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """Return `source:line` of a node, or of the nearest node above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.source}:{self.lines.get(path, 1)}"


def parse(text: str | bytes, source: str) -> Document:
    """Read one document.

    Raises:
        SpecError: naming source, line and what is not accepted.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_BYTES:
        raise SpecError([Fault("", f"{len(raw)} bytes; at most {MAX_BYTES} are read")], source)
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([Fault("", f"not UTF-8 text: byte {raw[error.start]:#04x} at {error.start}")], source) from None
    reader = _Reader(source)
    try:
        reader.read(decoded)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split())
        where = f"{source}:{mark.line + 1}" if mark else source
        raise SpecError([Fault("", f"not valid YAML: {problem}")], where) from None
    return Document(reader.root, source, reader.lines)


def read_scalar(text: str) -> str | int | float | bool | None:
    """Read a plain scalar as the YAML 1.2 core schema does, decimal numbers only.

    Raises:
        ValueError: if it is a number that specs cannot hold.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    is_int = _INT.fullmatch(text)
    if not is_int and not _FLOAT.fullmatch(text):
        if _NOT_FINITE.fullmatch(text):
            raise ValueError(f"{text} is not a finite number")
        return text
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number of {len(text)} characters; at most {MAX_NUMBER_LENGTH} are read")
    number = int(text) if is_int else float(text)
    if is_int and abs(number) > MAX_INT:
        raise ValueError(f"{text} is beyond ±2^53")
    if abs(number) == float("inf"):
        raise ValueError(f"{text} is not a finite number")
    return number


class _Writer(yaml.SafeDumper):
    """Quotes every string that would be read as something else, and never refers back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        try:
            style = None if isinstance(read_scalar(data), str) else '"'
        except ValueError:
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Writer.add_representer(str, _Writer.represent_text)


def write(data: Any) -> str:
    """Return plain data as text that `parse` reads back the same."""
    legible = json.dumps(data, ensure_ascii=False).isprintable()
    text: str = yaml.dump(
        data, Dumper=_Writer, sort_keys=False, default_flow_style=None, allow_unicode=legible, width=110
    )
    return text


@dataclass
class _Open:
    """A collection whose end has not been seen; `key` is the key that waits for its value."""

    node: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


class _Reader:
    """Builds plain data from parser events, refusing on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.root: Any = None
        self.lines: dict[Path, int] = {}
        self._open: list[_Open] = []
        self._documents = 0
        self._nodes = 0

    def read(self, text: str) -> None:
        line = 0
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark else line
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        self._refuse(line, "a second document begins; one is expected")
                case yaml.AliasEvent():
                    self._refuse(line, f"alias *{event.anchor}: aliases are not accepted; write the value out")
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._begin(event, line)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._open.pop()
                case yaml.ScalarEvent():
                    self._scalar(event, line)
        if not self._documents:
            self._refuse(line, "the document is empty")

    def _begin(self, event: Any, line: int) -> None:
        self._check(event, line)
        if len(self._open) >= MAX_DEPTH:
            self._refuse(line, f"nested deeper than {MAX_DEPTH} levels")
        node: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        if self._open and isinstance(self._open[-1].node, dict) and self._open[-1].key is None:
            self._refuse(line, "a key must be a name, not a collection")
        self._open.append(_Open(node, self._place(node, line)))

    def _scalar(self, event: Any, line: int) -> None:
        self._check(event, line)
        text = str(event.value)
        if re.search("[\ud800-\udfff]", text):
            self._refuse(line, "half of a surrogate pair, which is no character")
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.node, dict) and parent.key is None:
            self._key(parent, text, line)
        else:
            self._place(self._value(text, line) if event.implicit[0] else text, line)

    def _key(self, parent: _Open, key: str, line: int) -> None:
        assert isinstance(parent.node, dict)
        if not key or len(key) > MAX_KEY_LENGTH or not key.isprintable():
            self._refuse(line, f"a key is a printable name of 1 to {MAX_KEY_LENGTH} characters, got {key!r:.80}")
        if key in parent.node:
            first = self.lines[(*parent.path, key)]
            self._refuse(line, f"duplicate key {key!r:.80}, already given on line {first}")
        parent.key = key
        self.lines[(*parent.path, key)] = line

    def _place(self, value: Any, line: int) -> Path:
        """Put a value where the parser stands; return its path."""
        if not self._open:
            self.root = value
            self.lines[()] = line
            return ()
        parent = self._open[-1]
        if isinstance(parent.node, list):
            path = (*parent.path, len(parent.node))
            parent.node.append(value)
            self.lines[path] = line
            return path
        assert parent.key is not None
        parent.node[parent.key] = value
        path, parent.key = (*parent.path, parent.key), None
        return path

    def _value(self, text: str, line: int) -> Any:
        try:
            return read_scalar(text)
        except ValueError as error:
            self._refuse(line, str(error))

    def _check(self, event: Any, line: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(line, f"more than {MAX_NODES} values")
        if event.anchor is not None:
            self._refuse(line, f"anchor &{event.anchor}: anchors are not accepted; write the value out")
        if event.tag is not None:
            self._refuse(line, f"tag {event.tag}: tags are not accepted")

    def _refuse(self, line: int, message: str) -> NoReturn:
        raise SpecError([Fault("", message)], f"{self.source}:{line}" if line else self.source)
