"""Building a spec so that whatever goes wrong is told with its place in the spec and the package it comes from."""

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from pydantic import BaseModel

from lavie.errors import Fault, SpecError
from lavie.registry import Registry
from lavie.spec import Spec, join_path


@dataclass(frozen=True)
class Built:
    """One thing that a spec built, and what the host told it."""

    arguments: tuple[Any, ...]
    result: Any


def build(spec: Spec, registry: Registry) -> Any:
    """Build a spec whose kind needs no arguments.

    Raises:
        SpecError: with the path of the innermost spec that refused or failed.
    """
    try:
        return spec.build()  # type: ignore[attr-defined]
    except SpecError:
        raise
    except Exception as error:
        inner, path = _innermost(spec, error)
        text = str(error) or "no reason given"
        message = text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
        if (owner := registry.owner(inner)).distribution != "lavie":
            message = f"{message} (from {owner})"
        raise SpecError([Fault(path, message)]) from error


def stands_alone(spec: Spec) -> bool:
    """Tell whether a spec builds without being told its place in a network."""
    method = getattr(spec, "build", None)
    return method is not None and not inspect.signature(method).parameters


def parts(spec: BaseModel, path: str = "") -> Iterator[tuple[str, Spec]]:
    """Walk all specs inside a spec, itself first, each with its path as a user writes it."""
    if isinstance(spec, Spec):
        yield path, spec
    for name in type(spec).model_fields:
        below = path if name in {"everywhere", "levels"} and not isinstance(spec, Spec) else join_path(path, name)
        yield from _parts_of_value(getattr(spec, name), below)


def _parts_of_value(value: Any, path: str) -> Iterator[tuple[str, Spec]]:
    if isinstance(value, BaseModel):
        yield from parts(value, path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts_of_value(item, join_path(path, str(key)))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _parts_of_value(item, join_path(path, index))


@contextmanager
def watched(spec: Spec) -> Iterator[dict[int, list["Built"]]]:
    """Within the context, note what each spec inside `spec` builds, by the spec's `id`."""
    built: dict[int, list[Built]] = {}

    def noting(build: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(build)
        def note(self: Spec, *args: Any, **kwargs: Any) -> Any:
            result = build(self, *args, **kwargs)
            built.setdefault(id(self), []).append(Built(args, result))
            return result

        return note

    with ExitStack() as stack:
        for cls in {type(part) for _, part in parts(spec)}:
            if "build" in vars(cls):
                stack.enter_context(mock.patch.object(cls, "build", noting(vars(cls)["build"])))
        yield built


def _innermost(root: Spec, error: Exception) -> tuple[Spec, str]:
    """Find the spec whose `build` was running when the error arose, and its path."""
    paths = {id(part): path for path, part in parts(root)}
    found: tuple[Spec, str] = root, ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        running = frame.f_locals.get("self")
        if isinstance(running, Spec) and id(running) in paths:
            found = running, paths[id(running)]
    return found
