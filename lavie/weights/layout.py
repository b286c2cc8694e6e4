"""Layouts: how files name, shape and join the tensors of one part of a stage, and what else they carry."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from lavie.errors import WeightsError
from lavie.weights.keymap import KeyMap


@dataclass
class Reading:
    """The tensors of a part, read from a file, and what became of each of the file's keys."""

    state: dict[str, Tensor] = field(default_factory=dict)
    """Tensors under our names."""
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Their key to ours; several where a file holds tensors joined."""
    constants: dict[str, Tensor] = field(default_factory=dict)
    """Their key to a tensor that we compute; it was compared with ours."""
    left_over: dict[str, str] = field(default_factory=dict)
    """Their key to the reason why the network has no use for it."""
    unknown: dict[str, Tensor] = field(default_factory=dict)
    """Their key to a tensor of which nothing is known: a file that has any is refused."""


def _as_it_is(key: str, tensor: Tensor) -> Mapping[str, Tensor]:
    return {key: tensor}


def _all_as_they_are(file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(file)


def reason(key: str, idle: Mapping[str, str]) -> str:
    """Return why a key is left over, or nothing if no pattern matches it whole."""
    return next((why for pattern, why in idle.items() if re.fullmatch(pattern, key)), "")


@dataclass(frozen=True)
class Layout:
    """One published way to write down a part, both ways."""

    name: str
    keys: KeyMap
    unpack: Callable[[str, Tensor], Mapping[str, Tensor]] = _as_it_is
    """Turns an entry of a file into the entries that `keys` knows, by cutting or reshaping."""
    pack: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = _all_as_they_are
    """Undoes `unpack` for a whole file."""
    idle: Mapping[str, str] = field(default_factory=dict)
    """Patterns of keys that are left over, and why."""

    def read(self, file: Mapping[str, Tensor]) -> Reading:
        """Give every tensor of a file its place; data is neither copied nor changed.

        Raises:
            WeightsError: if one tensor has two names, or a constant is not the one that this network computes.
        """
        reading, known = Reading(), dict[str, Tensor]()
        for key, tensor in file.items():
            if why := reason(key, self.idle):
                reading.left_over[key] = why
            elif self.keys.is_derived(key):
                reading.constants[key] = known[key] = tensor
            else:
                entries = self.unpack(key, tensor)
                try:
                    reading.places[key] = tuple(self.keys.from_official(entry) for entry in entries)
                    known |= entries
                except WeightsError:
                    reading.unknown[key] = tensor
        reading.state = self.keys.convert_from_official(known)
        return reading

    def write(self, state: Mapping[str, Tensor], constants: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return tensors of ours as such a file holds them.

        Without `constants`, those that such files carry are computed.

        Raises:
            WeightsError: if there is a tensor of which such files know nothing.
        """
        return self.pack(self.keys.convert_to_official(state, derived=constants is None)) | dict(constants or {})

    def name_in_file(self, key: str) -> str:
        """Return their name of one of our keys, for messages; ours if they have none."""
        return self.keys.to_official(key) if self.keys.knows(key) else key
