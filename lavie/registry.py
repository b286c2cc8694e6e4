"""The registry: which components exist, who owns each name, and how names become specs (pluggy inside)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pluggy
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from lavie.errors import Fault, PluginError, SpecError
from lavie.spec import Spec, faults_of, is_kind, suggest, type_of

hookspec = pluggy.HookspecMarker("lavie")
hookimpl = pluggy.HookimplMarker("lavie")
"""Marks a plugin's implementation of a lavie hook."""

S = TypeVar("S", bound=Spec)


class Hooks:
    """Every extension point of lavie."""

    @hookspec
    def lavie_components(self) -> list[type[Spec]]:  # type: ignore[empty-body]
        """Return the component classes that this plugin adds, of any kind; must have no side effect."""


@dataclass(frozen=True)
class Owner:
    """The package a component comes from."""

    distribution: str
    version: str = ""
    entry_point: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Plugin:
    """A plugin module (or object with hook implementations) and the package that owns it."""

    owner: Owner
    module: object


@dataclass(frozen=True)
class Problem:
    """A plugin that was left out, or a name that two plugins claim, and why."""

    owner: Owner
    cause: str

    def __str__(self) -> str:
        where = f" (entry point {self.owner.entry_point!r})" if self.owner.entry_point else ""
        return f"{self.owner}{where}: {self.cause}"


@dataclass(frozen=True)
class Component:
    """A registered component: its class and the package it comes from."""

    cls: type[Spec]
    owner: Owner


class Registry:
    """The components of a set of plugins; built once, never changed.

    Plugins are modules (or any objects) that implement `lavie_components`. A plugin that fails is left out whole and
    listed in `problems`; a name claimed by two plugins belongs to neither, and using it says so.
    """

    def __init__(self, *plugins: object, problems: Iterable[Problem] = ()) -> None:
        self._kinds: dict[str, dict[str, Component]] = {}
        self._contested: dict[tuple[str, str], list[Owner]] = {}
        self.problems: list[Problem] = list(problems)
        manager = pluggy.PluginManager("lavie")
        manager.add_hookspecs(Hooks)
        for each in plugins:
            plugin = each if isinstance(each, Plugin) else Plugin(_owner_of(each), each)
            try:
                self._add(plugin.owner, _components_of(manager, plugin.module))
            except PluginError as error:
                self.problems.append(Problem(plugin.owner, str(error)))

    def _add(self, owner: Owner, classes: list[type[Spec]]) -> None:
        for cls in classes:
            kind, name = cls.kind, type_of(cls)
            named = self._kinds.setdefault(kind, {})
            key = (kind, name)
            if name in named and named[name].owner.distribution == "lavie":
                self.problems.append(Problem(owner, f"{kind} {name!r} is lavie's own name; choose another"))
            elif name in named:
                self._contested[key] = [named.pop(name).owner, owner]
                self.problems.append(Problem(owner, f"{kind} {name!r} is also claimed by {self._contested[key][0]}"))
            elif key in self._contested:
                self._contested[key].append(owner)
            else:
                named[name] = Component(cls, owner)

    def kinds(self) -> list[str]:
        """Return the names of the kinds that have components, sorted."""
        return sorted(self._kinds)

    def components(self, kind: str) -> dict[str, Component]:
        """Return the components of one kind by type name, sorted."""
        return dict(sorted(self._kinds.get(kind, {}).items()))

    def owner(self, spec: Spec) -> Owner:
        """Return the package that a component spec comes from."""
        return self._kinds[spec.kind][type_of(type(spec))].owner

    def load(self, kind: type[S], data: Any, source: str = "") -> S:
        """Turn a mapping, a bare type name or a spec into a spec of `kind`.

        Raises:
            SpecError: listing every fault with its path in `data`.
        """
        if isinstance(data, kind):
            return data
        context = {"registry": self}
        try:
            if is_kind(kind):
                cls, fields = self.component(kind, data)
                return cls.model_validate(fields, context=context)  # type: ignore[return-value]
            return kind.model_validate(data, context=context)
        except PydanticCustomError as error:
            raise SpecError([Fault("", error.message())], source) from None
        except ValidationError as error:
            raise SpecError(faults_of(error), source) from None

    def component(self, kind: type[Spec], data: Any) -> tuple[type[Spec], dict[str, Any]]:
        """Find the component class that `data` names, and the fields left for it."""
        fields = {"type": data} if isinstance(data, str) else data
        if not isinstance(fields, Mapping):
            got = "nothing" if data is None else f"{type(data).__name__} {data!r}"
            self._refuse(f"expected a {kind.kind}: a type name or a mapping with 'type', got {got}.", kind.kind)
        name = fields.get("type")
        if not isinstance(name, str):
            self._refuse("'type' is missing." if name is None else f"'type' must be a name, got {name!r}.", kind.kind)
        if owners := self._contested.get((kind.kind, name)):
            claims = " and ".join(map(str, owners))
            self._refuse(f"{kind.kind} {name!r} is claimed by {claims}; choose one with LAVIE_PLUGINS.", kind.kind)
        found = self._kinds.get(kind.kind, {}).get(name)
        if found is None or not issubclass(found.cls, kind):
            known = list(self.components(kind.kind))
            self._refuse(f"unknown {kind.kind} {name!r}.{suggest(name, known)}", kind.kind)
        return found.cls, dict(fields)

    def _refuse(self, message: str, kind: str) -> Any:
        message += f" Installed: {', '.join(self.components(kind)) or 'none'}."
        if self.problems:
            message += " Not loaded: " + "; ".join(map(str, self.problems)) + "."
        raise PydanticCustomError("component", message.replace("{", "{{").replace("}", "}}"))  # type: ignore[arg-type]


def _owner_of(module: object) -> Owner:
    return Owner(str(getattr(module, "__name__", type(module).__name__)).split(".")[0])


def _components_of(manager: pluggy.PluginManager, module: object) -> list[type[Spec]]:
    """Ask one plugin for its classes and check all of them before any is registered.

    Raises:
        PluginError: if a hook is misspelt, raises, or returns something other than component classes.
    """
    try:
        manager.register(module)
        manager.check_pending()
        answers = manager.subset_hook_caller(
            "lavie_components", [other for other in manager.get_plugins() if other is not module]
        )()
    except Exception as error:
        manager.unregister(module) if manager.is_registered(module) else None
        raise PluginError(f"{type(error).__name__}: {error}") from error
    classes = [cls for answer in answers for cls in answer]
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, Spec) and cls.kind and "type" in cls.model_fields):
            raise PluginError(f"lavie_components returned {cls!r}, which is no component class")
    return classes
