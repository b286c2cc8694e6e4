"""The registry: which components exist, who owns each name, and how names become specs."""

import functools
import importlib
import logging
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from lavie.errors import Fault, PluginError, SpecError
from lavie.faults import faults_of, suggest
from lavie.plugins import (
    Hooks,
    Owner,
    Plugin,
    Problem,
    announced,
    before_import,
    classes_of,
    hookimpl,
    hookspec,
    kind_class,
    load,
    pinned,
)
from lavie.spec import Spec, is_kind, type_of
from lavie.version import lavie_version

S = TypeVar("S", bound=Spec)
LAVIE = "lavie"
"""The distribution whose names nobody can take."""


@dataclass(frozen=True)
class Component:
    """A registered component: its class and the package it comes from."""

    cls: type[Spec]
    owner: Owner


class Registry:
    """The components of a set of plugins; built once, never changed.

    Plugins are modules (or any objects) that implement `lavie_components`. A plugin that fails, or that takes one of
    lavie's own names, is left out whole and listed in `problems`; a name that two plugins claim belongs to neither,
    and using it says so.
    """

    def __init__(self, *plugins: object, problems: Iterable[Problem] = ()) -> None:
        self.problems: list[Problem] = list(problems)
        offers: list[tuple[Owner, tuple[type[Spec], ...]]] = []
        for each in plugins:
            plugin = each if isinstance(each, Plugin) else Plugin(_owner_of(each), each)
            try:
                offers.append((plugin.owner, classes_of(plugin.module)))
            except PluginError as error:
                self.problems.append(Problem(plugin.owner, str(error)))
        claims = [(owner, tuple(claim(cls) for cls in classes)) for owner, classes in offers]
        left_out, self._contested = disputes(claims)
        self.problems += left_out.values()
        for (kind, name), owners in self._contested.items():
            cause = f"{kind} {name!r} is claimed by {' and by '.join(map(str, owners))}; neither has it"
            self.problems += [Problem(owner, cause, "conflict") for owner in owners]
        self._kinds: dict[str, dict[str, Component]] = {}
        self._classes: dict[str, type[Spec]] = {}
        for index, (owner, classes) in enumerate(offers):
            for cls in classes if index not in left_out else ():
                self._classes.setdefault(cls.kind, kind_class(cls))
                if (cls.kind, type_of(cls)) not in self._contested:
                    self._kinds.setdefault(cls.kind, {})[type_of(cls)] = Component(cls, owner)

    def kinds(self) -> list[str]:
        """Return the names of the kinds that have components, sorted."""
        return sorted(self._kinds)

    def kind(self, name: str) -> type[Spec]:
        """Return the abstract class of a kind.

        Raises:
            SpecError: naming the nearest and all kinds.
        """
        if name not in self._classes:
            known = ", ".join(self.kinds()) or "none"
            raise SpecError([Fault("", f"unknown kind {name!r}.{suggest(name, self.kinds())} Kinds: {known}.")])
        return self._classes[name]

    def kinds_of(self, type_name: str) -> list[str]:
        """Return the kinds that have a component of this name."""
        return [kind for kind in self.kinds() if type_name in self._kinds[kind]]

    def components(self, kind: str) -> dict[str, Component]:
        """Return the components of one kind by type name, sorted."""
        return dict(sorted(self._kinds.get(kind, {}).items()))

    def owner(self, spec: Spec) -> Owner:
        """Return the package that a component spec comes from."""
        found = self._kinds.get(spec.kind, {}).get(type_of(type(spec))) if "type" in type(spec).model_fields else None
        return found.owner if found and found.cls is type(spec) else Owner(type(spec).__module__.split(".")[0])

    def load(self, kind: type[S], data: Any, source: str = "") -> S:
        """Turn a mapping, a bare type name or a spec into a spec of `kind`.

        Raises:
            SpecError: listing every fault with its path in `data`.
        """
        if isinstance(data, kind):
            return data
        try:
            if is_kind(kind):
                return self.make(kind, data)
            return kind.model_validate(data, context={"registry": self})
        except PydanticCustomError as error:
            raise SpecError([Fault("", error.message())], source) from None
        except ValidationError as error:
            raise SpecError(faults_of(error, data=data), source) from None
        except RecursionError:
            raise SpecError([Fault("", "nested too deeply, or contains itself")], source) from None

    def make(self, kind: type[S], data: Any) -> S:
        """Turn a mapping or a name into a spec, for pydantic: faults come as its errors.

        Raises:
            ValidationError: if the component's fields are not as they should be.
            PydanticCustomError: if there is no such component, or a foreign one fails otherwise.
        """
        cls, fields = self.component(kind, data)
        try:
            return cls.model_validate(fields, context={"registry": self})  # type: ignore[return-value]
        except (ValidationError, PydanticCustomError, RecursionError):
            raise
        except Exception as error:
            owner = self._kinds[kind.kind][type_of(cls)].owner
            if owner.distribution == LAVIE:
                raise
            message = f"{kind.kind} {type_of(cls)!r} of {owner} failed: {type(error).__name__}: {error}"
            raise PydanticCustomError("component", message) from error

    def component(self, kind: type[Spec], data: Any) -> tuple[type[Spec], dict[str, Any]]:
        """Find the component class that `data` names, and the fields left for it."""
        fields = {"type": data} if isinstance(data, str) else data
        if not isinstance(fields, Mapping):
            got = "nothing" if data is None else reprlib.repr(list(data) if isinstance(data, tuple) else data)
            self._refuse(f"expected a {kind.kind}: a type name or a mapping with 'type', got {got}.", kind.kind)
        name = fields.get("type")
        if not isinstance(name, str):
            fault = "'type' is missing." if "type" not in fields else f"'type' must be a name, got {name!r:.80}."
            self._refuse(fault, kind.kind)
        if owners := self._contested.get((kind.kind, name)):
            claims = " and by ".join(map(str, owners))
            self._refuse(f"{kind.kind} {name!r} is claimed by {claims}; choose one with LAVIE_PLUGINS.", kind.kind)
        found = self._kinds.get(kind.kind, {}).get(name)
        if found is None or not issubclass(found.cls, kind):
            others = [other for other in self.kinds_of(name) if other != kind.kind]
            hint = f" It names a {others[0]}." if others else suggest(name, self.components(kind.kind))
            self._refuse(f"unknown {kind.kind} {name!r:.80}.{hint}", kind.kind)
        return found.cls, dict(fields)

    def _refuse(self, message: str, kind: str) -> NoReturn:
        message += f" Installed: {', '.join(self.components(kind)) or 'none'}."
        if self.problems:
            message += " Not loaded: " + "; ".join(dict.fromkeys(map(str, self.problems))) + "."
        raise PydanticCustomError("component", message)


@dataclass(frozen=True)
class Claim:
    """A name that a plugin wants, and the class that it takes for the kind's."""

    kind: str
    name: str
    base: str


def claim(cls: type[Spec]) -> Claim:
    """Return what a component class claims."""
    base = kind_class(cls)
    return Claim(cls.kind, type_of(cls), f"{base.__module__}.{base.__qualname__}")


def disputes(
    claims: Sequence[tuple[Owner, Sequence[Claim]]],
) -> tuple[dict[int, Problem], dict[tuple[str, str], list[Owner]]]:
    """Judge all claims at once, so that no order of plugins matters.

    Returns the plugins to be left out whole (by index), for taking a name of lavie or giving a kind another base
    class, and the names that several of the remaining plugins claim.
    """
    own = {(each.kind, each.name) for owner, wanted in claims if owner.distribution == LAVIE for each in wanted}
    bases = _bases([each for _, wanted in claims for each in wanted])
    left_out: dict[int, Problem] = {}
    owners: dict[tuple[str, str], list[Owner]] = {}
    for index, (owner, wanted) in enumerate(claims):
        if owner.distribution != LAVIE:
            if taken := [f"{each.kind} {each.name!r}" for each in wanted if (each.kind, each.name) in own]:
                cause = f"{', '.join(taken)} is lavie's own name; choose another. The plugin is left out"
                left_out[index] = Problem(owner, cause, "conflict")
                continue
            if strange := [each for each in wanted if bases[each.kind] != [each.base]]:
                others = " and ".join(base for base in bases[strange[0].kind] if base != strange[0].base)
                cause = f"{strange[0].kind} {strange[0].name!r} derives from {strange[0].base}, not from {others}"
                left_out[index] = Problem(owner, cause)
                continue
        for each in wanted:
            owners.setdefault((each.kind, each.name), []).append(owner)
    return left_out, {key: several for key, several in owners.items() if len(several) > 1}


def _bases(claims: Sequence[Claim]) -> dict[str, list[str]]:
    """Return the class that each kind has, or all that are claimed for it; lavie's own class ends the dispute."""
    bases: dict[str, list[str]] = {}
    for each in claims:
        if each.base not in bases.setdefault(each.kind, []):
            bases[each.kind].append(each.base)
    for kind, several in bases.items():
        bases[kind] = [base for base in several if base.startswith(f"{LAVIE}.")] or several
    return bases


@functools.cache
def installed() -> Registry:
    """Return lavie's own components and those of the installed plugins; broken plugins are reported and left out.

    Raises:
        PluginError: if LAVIE_PLUGINS names what is not installed, or, with LAVIE_PLUGINS_STRICT=1, for any problem.
    """
    chosen = pinned(announced())
    problems = before_import(chosen)
    refused = {problem.owner for problem in problems}
    plugins = [Plugin(Owner(LAVIE, lavie_version()), importlib.import_module("lavie.builtin"))]
    for each in chosen:
        if each.owner not in refused:
            try:
                plugins.append(Plugin(each.owner, load(each)))
            except PluginError as error:
                problems.append(Problem(each.owner, str(error)))
    registry = Registry(*plugins, problems=problems)
    if own := [problem for problem in registry.problems if problem.owner.distribution == LAVIE]:
        raise PluginError(f"lavie itself is broken: {own[0]}")
    if registry.problems and os.environ.get("LAVIE_PLUGINS_STRICT", "") not in {"", "0"}:
        raise PluginError("\n".join(f"plugin {problem}" for problem in registry.problems))
    for problem in registry.problems:
        logging.getLogger(__name__).warning("plugin left out: %s", problem)
    return registry


def _owner_of(module: object) -> Owner:
    return Owner(str(getattr(module, "__name__", type(module).__name__)).split(".")[0])


__all__ = [
    "Component",
    "Hooks",
    "Owner",
    "Plugin",
    "Problem",
    "Registry",
    "hookimpl",
    "hookspec",
    "installed",
]
