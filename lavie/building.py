"""Building a spec so that whatever goes wrong is told with its place in the spec and the package it comes from."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from lavie.errors import Fault, SpecError
from lavie.faults import join_path
from lavie.registry import Registry
from lavie.spec import Spec
from lavie.watching import watcher


@dataclass(frozen=True)
class Built:
    """One thing that a spec built, and what the host told it."""

    arguments: tuple[Any, ...]
    result: Any


class Log:
    """What specs have built, and which of them failed."""

    def __init__(self) -> None:
        self._built: dict[int, list[Built]] = {}
        self._running: list[Spec] = []
        self._error: Exception | None = None
        self._failed: list[Spec] = []

    def __call__(self, spec: Spec, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """Note what a spec builds; a method that calls its parent's counts once."""
        if self._running and self._running[-1] is spec:
            return run()
        self._running.append(spec)
        try:
            result = run()
        except Exception as error:
            if error is not self._error:
                self._error, self._failed = error, []
            self._failed.append(spec)
            raise
        finally:
            self._running.pop()
        self._built.setdefault(id(spec), []).append(Built(arguments, result))
        return result

    def built(self, spec: Spec) -> list[Built]:
        """Return what a spec has built: this very object, not one that equals it."""
        return self._built.get(id(spec), [])

    def failed(self, error: Exception, root: Spec) -> tuple[Spec, str]:
        """Return the innermost spec inside `root` whose `build` ended in the error, and its path."""
        paths = {id(part): path for path, part in parts(root)}
        failed = self._failed if error is self._error else []
        found = next((spec for spec in failed if id(spec) in paths), root)
        return found, paths[id(found)]


@contextmanager
def watched() -> Iterator[Log]:
    """Within the context, log what specs build, in the log of the context around it if there is one."""
    log = watcher.get()
    if isinstance(log, Log):
        yield log
        return
    token = watcher.set(log := Log())
    try:
        yield log
    finally:
        watcher.reset(token)


def build(spec: Spec, registry: Registry) -> Any:
    """Build a spec whose kind needs no arguments.

    Raises:
        SpecError: with the path of the innermost spec that refused or failed.
    """
    with watched() as log:
        try:
            return spec.build()  # type: ignore[attr-defined]
        except SpecError:
            raise
        except Exception as error:
            inner, path = log.failed(error, spec)
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
