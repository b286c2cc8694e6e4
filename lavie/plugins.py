"""Plugins: the one hook, who is installed, and importing each without letting it harm the rest.

pluggy's own entry-point loader stops at the first package that fails and skips duplicates in silence, so the entry
points are walked here, and each plugin is asked for its classes alone.
"""

import importlib.metadata
import itertools
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from inspect import isabstract
from typing import get_args

import pluggy
from packaging.requirements import InvalidRequirement, Requirement

from lavie.errors import PluginError
from lavie.faults import suggest
from lavie.spec import Spec, is_kind, type_of
from lavie.version import lavie_version

GROUP = "lavie"
"""The entry-point group in which packages announce their plugins."""
IMPORT_SECONDS = 60.0
"""How long one plugin may take to import, in seconds; LAVIE_PLUGINS_TIMEOUT overrides it."""

hookspec = pluggy.HookspecMarker("lavie")
hookimpl = pluggy.HookimplMarker("lavie")
"""Marks a plugin's implementation of a lavie hook."""


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
    status: str = "broken"
    """`broken`, `conflict` or `incompatible`."""

    def __str__(self) -> str:
        where = f" (entry point {self.owner.entry_point!r})" if self.owner.entry_point else ""
        return f"{self.owner}{where}: {self.cause}"


@dataclass(frozen=True)
class Announced:
    """One entry point of the group, as its package's metadata tells it; nothing has been imported."""

    owner: Owner
    entry_point: importlib.metadata.EntryPoint
    requirements: tuple[str, ...] = ()


def announced() -> list[Announced]:
    """List the entry points of every readable package, sorted by name; the first of a package on the path counts."""
    found: dict[tuple[str, str], Announced] = {}
    seen: set[str] = set()
    for package in importlib.metadata.distributions():
        try:
            points = [point for point in package.entry_points if point.group == GROUP]
            name, version, requirements = _identity(package) if points else ("", "", ())
        except Exception:  # unreadable metadata of some package must not stop the others
            continue
        if not points or canonical(name) in seen:
            continue
        seen.add(canonical(name))
        for point in points:
            found.setdefault((point.name, name), Announced(Owner(name, version, point.name), point, requirements))
    return [found[key] for key in sorted(found)]


def _identity(package: importlib.metadata.Distribution) -> tuple[str, str, tuple[str, ...]]:
    """Return name, version and requirements; a package without readable metadata goes by its folder's name."""
    try:
        if package.metadata["Name"]:
            return str(package.name), str(package.version), tuple(package.requires or ())
    except Exception:  # the folder's name still says whose it is
        pass
    folder = str(getattr(package, "_path", "unknown package")).replace("\\", "/").rsplit("/", 1)[-1]
    return folder.rsplit(".", 1)[0].split("-")[0], "", ()


def canonical(name: str) -> str:
    """Return a package name the way package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(everything: Sequence[Announced]) -> list[Announced]:
    """Keep what LAVIE_PLUGINS names (`name` or `name@package`, comma separated; empty: none); all if it is unset.

    Raises:
        PluginError: if it names something that is not installed.
    """
    if (wish := os.environ.get("LAVIE_PLUGINS")) is None:
        return list(everything)
    names = [name.strip() for name in wish.split(",") if name.strip()]
    kept = []
    for name in names:
        point, _, package = name.partition("@")
        matches = [each for each in everything if each.owner.entry_point == point]
        if package:
            matches = [each for each in matches if canonical(each.owner.distribution) == canonical(package)]
        if not matches:
            installed = ", ".join(f"{e.owner.entry_point} ({e.owner})" for e in everything) or "no plugin"
            hint = suggest(point, {each.owner.entry_point for each in everything} - {point})
            raise PluginError(f"LAVIE_PLUGINS names {name!r}, which is not installed.{hint} Installed: {installed}.")
        kept += [each for each in matches if each not in kept]
    return kept


def before_import(chosen: Sequence[Announced]) -> list[Problem]:
    """Find what metadata alone shows: two packages with one entry-point name, and a lavie that is too old or new."""
    problems = []
    times = Counter(each.owner.entry_point for each in chosen)
    for each in chosen:
        name = each.owner.entry_point
        if times[name] > 1:
            both = " and ".join(f"{e.owner.distribution!r}" for e in chosen if e.owner.entry_point == name)
            remedy = f"choose one with LAVIE_PLUGINS={name}@{each.owner.distribution}"
            cause = f"packages {both} have the same entry point; neither is loaded. To use it, {remedy}"
            problems.append(Problem(each.owner, cause, "conflict"))
        elif unmet := _unmet(each.requirements):
            problems.append(Problem(each.owner, f"needs {unmet}, this is lavie {lavie_version()}", "incompatible"))
    return problems


def _unmet(requirements: Sequence[str]) -> str:
    if lavie_version() == "0+unknown":
        return ""
    for text in requirements:
        try:
            needed = Requirement(text)
            applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
        except InvalidRequirement:
            continue
        if needed.name == "lavie" and applies and not needed.specifier.contains(lavie_version(), prereleases=True):
            return str(needed)
    return ""


def import_seconds() -> float:
    """Return how long one plugin may take to import, in seconds.

    Raises:
        PluginError: if LAVIE_PLUGINS_TIMEOUT is no positive number.
    """
    text = os.environ.get("LAVIE_PLUGINS_TIMEOUT", str(IMPORT_SECONDS))
    try:
        if (seconds := float(text)) > 0:
            return seconds
    except ValueError:
        pass
    raise PluginError(f"LAVIE_PLUGINS_TIMEOUT must be a number of seconds above 0, got {text!r}")


def load(each: Announced) -> object:
    """Import one plugin and return its module.

    Raises:
        PluginError: for whatever it did instead; only an interrupt passes.
    """
    try:
        with _time_limit(), redirect_stdout(sys.stderr):  # stdout holds results alone
            return each.entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit included: an import must not end the program
        raise PluginError(f"cannot be imported: {_one_line(error)}") from error


def classes_of(module: object) -> tuple[type[Spec], ...]:
    """Ask one plugin for its component classes and check every one of them.

    Raises:
        PluginError: if a hook is misspelt, raises, or returns something other than component classes.
    """
    manager = pluggy.PluginManager("lavie")
    manager.add_hookspecs(Hooks)
    try:
        _check_hook_names(module)
        manager.register(module, name="plugin")
        with _time_limit(), redirect_stdout(sys.stderr):
            answers = manager.hook.lavie_components()
            classes = tuple(itertools.islice((cls for answer in answers for cls in answer), 10_000))
    except (KeyboardInterrupt, PluginError):
        raise
    except BaseException as error:
        raise PluginError(f"lavie_components failed: {_one_line(error)}") from error
    if not answers:
        raise PluginError("lavie_components returned None; it must return a list of component classes")
    for cls in classes:
        _check_class(cls)
    if twice := [name for name, times in Counter((c.kind, type_of(c)) for c in classes).items() if times > 1]:
        raise PluginError(f"lavie_components returned {' '.join(twice[0])} twice")
    return classes


def _check_hook_names(module: object) -> None:
    hooks = [name for name in vars(Hooks) if name.startswith("lavie_")]
    marked = [name for name in dir(module) if getattr(getattr(module, name, None), "lavie_impl", None)]
    for name in marked:
        if name not in hooks:
            raise PluginError(f"unknown hook {name!r}.{suggest(name, hooks)} Known: {', '.join(hooks)}.")
    if not marked:
        forgotten = any(name in hooks for name in dir(module))
        remedy = "mark lavie_components with @lavie.hookimpl" if forgotten else f"define one of {', '.join(hooks)}"
        raise PluginError(f"implements no hook of lavie; {remedy}")


def _check_class(cls: object) -> None:
    """Refuse what is no component: an instance, an abstract class, a class without kind, type or a sane name."""
    if not (isinstance(cls, type) and issubclass(cls, Spec)):
        raise PluginError(f"lavie_components returned {cls!r:.80}, which is no component class")
    if not cls.kind or is_kind(cls) or not any(is_kind(base) for base in _spec_bases(cls)):
        raise PluginError(f"{cls.__name__} is no component: it needs a kind as base and 'type: Literal[\"name\"]'")
    if isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise PluginError(f"{cls.__name__} does not define {missing}")
    names = get_args(cls.model_fields["type"].annotation)
    if len(names) != 1 or not isinstance(names[0], str) or not re.fullmatch(r"[A-Za-z][\w.-]{0,63}", names[0]):
        raise PluginError(f"{cls.__name__}.type must be a Literal of one name of letters, digits and _, got {names}")


def kind_class(cls: type[Spec]) -> type[Spec]:
    """Return the kind (abstract class) that a component belongs to."""
    return [base for base in _spec_bases(cls) if is_kind(base)][-1]


def _spec_bases(cls: type[Spec]) -> list[type[Spec]]:
    return [base for base in cls.__mro__ if issubclass(base, Spec)]


def _one_line(error: BaseException) -> str:
    """Return kind and text of an error as one line that a terminal can show."""
    text = " ".join(str(error).split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise TimeoutError in the main thread when time is up, where the platform has such a timer."""
    seconds = import_seconds()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"took more than {seconds:g} seconds")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
