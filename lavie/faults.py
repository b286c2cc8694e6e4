"""Faults of specs, told with the paths that users write and the names they may have meant."""

import difflib
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from lavie.errors import Fault

_COUNT = re.compile(r"\w+ should have at (least|most) (\d+) item(s?) after validation, not (?:more than )?(\d+)")


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which of the known names was probably meant, as a sentence with a leading space, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=5, cutoff=0.5)
    if not close:
        return ""

    def nearness(other: str) -> tuple[float, int]:
        """Of equally near names, the one with the most letters in common: two letters may have changed places."""
        return difflib.SequenceMatcher(None, other, name).ratio(), (Counter(name) & Counter(other)).total()

    return f" Did you mean {max(close, key=nearness)!r}?"


def with_suggestions(error: ValidationError, known: Sequence[str]) -> ValidationError:
    """Rewrite the unknown-key errors of one model so that they name the nearest and the known keys."""
    details: list[InitErrorDetails] = []
    for line in error.errors(include_url=False):
        kind: PydanticCustomError | str
        if line["type"] == "extra_forbidden" and len(line["loc"]) == 1:
            hint = suggest(str(line["loc"][0]), known)
            kind = PydanticCustomError("unknown_key", f"unknown key.{hint} Known: {', '.join(known)}.")
        elif line["type"] == "missing":
            kind = "missing"
        else:
            kind = PydanticCustomError(line["type"], line["msg"])
        details.append({"type": kind, "loc": line["loc"], "input": line["input"]})
    return ValidationError.from_exception_data(error.title, details)


def faults_of(error: ValidationError, root: str = "", data: Any = None) -> list[Fault]:
    """Turn a validation error into one fault per line, with paths as they are written in `data`."""
    lines = error.errors(include_url=False)
    lines = [line for line in lines if line["type"] != "too_short" or not _is_above_another(line, lines)]
    return [Fault(_path(line["loc"], line["type"] == "missing", data, root), _message(line)) for line in lines]


def join_path(path: str, part: str | int) -> str:
    """Return the path of one part below `path`, as users write it: `a.b[1]`."""
    return f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}" if path else part


def _path(loc: tuple[str | int, ...], is_missing: bool, data: Any, path: str) -> str:
    """Leave out the steps that pydantic took and the user did not write (per-level values, unions)."""
    node = data
    for index, part in enumerate(loc):
        if _has(node, part):
            node = node[part]
        elif data is None:  # made in Python: nothing to compare with
            if part == "everywhere":
                continue
        elif not is_missing or index < len(loc) - 1:  # what is missing was not written, but is where the fault is
            continue
        path = join_path(path, part)
    return path


def _is_above_another(line: ErrorDetails, lines: Sequence[ErrorDetails]) -> bool:
    """Tell whether another fault lies below the place of this one: a list is short of the values it has faults in."""
    depth = len(line["loc"])
    return any(len(other["loc"]) > depth and other["loc"][:depth] == line["loc"] for other in lines)


def _has(node: Any, part: str | int) -> bool:
    return part in node if isinstance(node, Mapping) else isinstance(node, list | tuple) and part in range(len(node))


def _message(line: ErrorDetails) -> str:
    if line["type"] == "missing":
        return "missing, and it has no default"
    message = line["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = message.replace("a valid dictionary or instance of", "a mapping:").replace("a valid tuple", "a list")
    message = _COUNT.sub(r"must have at \1 \2 value\3 (got \4)", message)
    shown = reprlib.repr(line["input"])
    is_group = isinstance(line["input"], dict | tuple | list | BaseModel)
    if line["type"] in {"unknown_key", "component"} or is_group or shown in message:
        return message
    return f"{message} (got {shown})"
