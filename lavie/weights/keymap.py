"""Renaming state-dict keys both ways between our modules and published files, from one table of rules."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lavie.errors import WeightsError

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SHOWN = 5


@dataclass(frozen=True)
class Rule:
    """One line of the table: a pattern of our keys, the pattern of theirs, and other spellings found in files.

    Placeholders stand for the parts that both sides share: `{i}` (one letter) is a number, `{leaf}` (a longer name)
    is any one part of a dotted key, as `weight` or `bias`. Both sides hold the same placeholders; the order is free.
    """

    ours: str
    theirs: str
    aliases: tuple[str, ...] = ()
    """Patterns accepted in place of `theirs` when reading; never written."""


@dataclass(frozen=True)
class Derived:
    """A tensor that files carry and that we compute, as position numbers or rotary frequencies.

    Files may lack it. One that is present must hold what `value` computes, so that a file made for a network with
    other constants is not mistaken for ours.
    """

    theirs: str
    beside: str
    """Pattern of one of our keys: the file has one derived tensor for each key of ours that matches."""
    value: Callable[[Tensor], Tensor]
    """Computes the tensor from the one of ours beside it."""


def under(ours: str, theirs: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return rules of a part moved below the prefixes of the place where it sits."""
    return tuple(
        Rule(ours + rule.ours, theirs + rule.theirs, tuple(theirs + alias for alias in rule.aliases)) for rule in rules
    )


class KeyMap:
    """An exact, invertible map between our key names and theirs.

    Every key must match one rule and one only. `prefix` is a prefix of all their keys that files may lack.

    Raises:
        ValueError: if the two sides of a rule hold different placeholders.
    """

    def __init__(self, rules: Sequence[Rule], *, derived: Sequence[Derived] = (), prefix: str = "") -> None:
        self.prefix = prefix
        self._to = _Table([_Pattern(rule.ours, rule.theirs) for rule in rules])
        self._from = _Table([_Pattern(theirs, rule.ours) for rule in rules for theirs in (rule.theirs, *rule.aliases)])
        self._derived = [_DerivedPattern(entry) for entry in derived]

    def to_official(self, key: str) -> str:
        """Return their name of one of our keys.

        Raises:
            WeightsError: if no rule matches, or more than one.
        """
        return self.prefix + _only(key, self._to.names(key))

    def from_official(self, key: str) -> str:
        """Return our name of one of their keys, with or without the prefix.

        Raises:
            WeightsError: if no rule matches, or more than one.
        """
        bare = key.removeprefix(self.prefix)
        return _only(bare, self._from.names(bare))

    def knows(self, key: str) -> bool:
        """Tell whether one of our keys has a name in their files."""
        return bool(self._to.names(key))

    def is_derived(self, key: str) -> bool:
        """Tell whether a key of theirs names a tensor that we compute."""
        return any(entry.theirs.matches(key.removeprefix(self.prefix)) for entry in self._derived)

    def convert_to_official(self, state: Mapping[str, Tensor], *, derived: bool = True) -> dict[str, Tensor]:
        """Rename a state dict of ours for a file, and add the tensors that such files carry besides."""
        official: dict[str, Tensor] = {}
        for key, tensor in state.items():
            if derived:
                official |= {self.prefix + name: value for name, value in self._beside(key, tensor)}
            official[self.to_official(key)] = tensor
        assert len(official) >= len(state), "two keys were given one name"
        return official

    def convert_from_official(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the state dict of a file to ours; derived tensors are checked and left out.

        Raises:
            WeightsError: naming the keys that no rule knows, keys present under two names, or a derived tensor that
                differs from what this network computes.
        """
        state, unknown = self._read(official)
        if unknown:
            raise WeightsError(f"weights hold {_listed(unknown, 'unexpected key')}")
        return state

    def load(self, module: nn.Module, official: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Load a file's state dict into one of our modules, after comparing every name and shape.

        Raises:
            WeightsError: naming missing, unexpected and misshapen keys as the file spells them; nothing is loaded.
        """
        state, unknown = self._read(official)
        _compare(module.state_dict(), state, unexpected=unknown, name=self.to_official)
        module.load_state_dict(dict(state), strict=True, assign=assign)

    def _read(self, official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        state: dict[str, Tensor] = {}
        found: dict[str, str] = {}
        constants: list[tuple[str, Tensor]] = []
        unknown: list[str] = []
        for key, tensor in official.items():
            bare = key.removeprefix(self.prefix)
            if self.is_derived(key):
                constants.append((key, tensor))
            elif names := self._from.names(bare):
                ours = _only(bare, names)
                if ours in state:
                    raise WeightsError(f"weights hold one tensor twice, as {found[ours]!r} and as {key!r}")
                state[ours], found[ours] = tensor, key
            else:
                unknown.append(key)
        unknown += self._check_derived(state, constants)
        return state, unknown

    def _beside(self, key: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
        for entry in self._derived:
            for name in _names(key, [entry.theirs_from_ours]):
                yield name, entry.value(tensor)

    def _check_derived(self, state: Mapping[str, Tensor], constants: Sequence[tuple[str, Tensor]]) -> list[str]:
        """Compare derived tensors of a file with ours; return the keys that have no place in this network."""
        if not constants:
            return []
        expected = dict(pair for key, tensor in state.items() for pair in self._beside(key, tensor))
        unknown = []
        for key, tensor in constants:
            own = expected.get(key.removeprefix(self.prefix))
            if own is None:
                unknown.append(key)
            elif not _same(own, tensor):
                raise WeightsError(f"{key} holds other values than this network uses; it was made for another one")
        return unknown


def load(module: nn.Module, state: Mapping[str, Tensor], *, assign: bool = False) -> None:
    """Load a state dict with our own names into a module, after comparing every name and shape.

    Raises:
        WeightsError: naming missing, unexpected and misshapen keys; nothing is loaded.
    """
    _compare(module.state_dict(), state)
    module.load_state_dict(dict(state), strict=True, assign=assign)


class _Pattern:
    """A compiled pattern and the name it is rewritten to."""

    def __init__(self, pattern: str, target: str) -> None:
        here, there = (sorted(_PLACEHOLDER.findall(side)) for side in (pattern, target))
        if here != there:
            raise ValueError(f"{pattern!r} and {target!r} do not hold the same placeholders")
        parts = _PLACEHOLDER.split(pattern)
        regex = "".join(_group(part) if index % 2 else re.escape(part) for index, part in enumerate(parts))
        self._regex, self._target = re.compile(regex), target
        self.head = parts[0]

    def rename(self, key: str) -> str | None:
        match = self._regex.fullmatch(key)
        return None if match is None else self._target.format(**match.groupdict())

    def matches(self, key: str) -> bool:
        return self._regex.fullmatch(key) is not None


class _DerivedPattern:
    def __init__(self, entry: Derived) -> None:
        self.theirs_from_ours = _Pattern(entry.beside, entry.theirs)
        self.theirs = _Pattern(entry.theirs, entry.beside)
        self.value = entry.value


def _group(name: str) -> str:
    return f"(?P<{name}>[0-9]+)" if len(name) == 1 else f"(?P<{name}>[^.]+)"


def _names(key: str, patterns: Iterable[_Pattern]) -> list[str]:
    return [
        name
        for pattern in patterns
        if key.startswith(pattern.head) and (name := pattern.rename(key)) is not None  # tables have hundreds of rules
    ]


class _Table:
    """Patterns, and the names that they gave: trying them all takes long, and the same keys come again and again."""

    def __init__(self, patterns: Sequence[_Pattern]) -> None:
        self._patterns = patterns
        self._known: dict[str, list[str]] = {}

    def names(self, key: str) -> list[str]:
        """Return all names that patterns give a key."""
        if key not in self._known:
            self._known[key] = _names(key, self._patterns)
        return self._known[key]


def _only(key: str, names: Sequence[str]) -> str:
    if len(names) != 1:
        cause = f"more than one rule, giving {' and '.join(names)}" if names else "no rule"
        raise WeightsError(f"{key!r} matches {cause}")
    return names[0]


def _same(own: Tensor, other: Tensor) -> bool:
    """Compare up to the rounding of half-precision files."""
    if own.shape != other.shape:
        return False
    if own.is_meta or other.is_meta:
        return True
    return torch.allclose(own.double().cpu(), other.double().cpu(), rtol=1e-2, atol=0.0)


def _compare(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    *,
    unexpected: Sequence[str] = (),
    name: Callable[[str], str] = str,
) -> None:
    missing = [name(key) for key in expected if key not in found]
    unexpected = [*unexpected, *(name(key) for key in found if key not in expected)]
    misshapen = [
        f"{name(key)} is {tuple(found[key].shape)} in the file and {tuple(tensor.shape)} in the network"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    faults = ((missing, "missing key"), (unexpected, "unexpected key"), (misshapen, "misshapen key"))
    if found_faults := [_listed(keys, what) for keys, what in faults if keys]:
        raise WeightsError("weights do not fit this network: " + "; ".join(found_faults))


def _listed(keys: Sequence[str], what: str) -> str:
    more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {what}{'s' if len(keys) > 1 else ''} ({', '.join(keys[:_SHOWN])}{more})"
