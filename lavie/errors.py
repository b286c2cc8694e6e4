"""The errors a user of lavie can cause; every message names the place, the fault and the remedy."""

from collections.abc import Sequence
from dataclasses import dataclass


class LavieError(Exception):
    """Base of every error that lavie raises for a mistake of its user."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong at one place of a spec."""

    path: str
    message: str
    where: str = ""
    """File and line, or the option, that the value at `path` comes from; empty for specs made in Python."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)

    def below(self, path: str) -> "Fault":
        """Return the same fault as seen from further out, `path` being where it was seen from."""
        joint = "" if not path or not self.path or self.path.startswith("[") else "."
        return Fault(f"{path}{joint}{self.path}", self.message, self.where)


class SpecError(LavieError, ValueError):
    """A spec, override or spec file that does not describe anything lavie can build."""

    def __init__(self, faults: Sequence[Fault], source: str = "") -> None:
        self.faults = tuple(faults)
        self.source = source
        prefix = f"{source}: " if source else ""
        super().__init__("\n".join(f"{prefix}{fault}" for fault in self.faults))

    def __reduce__(self) -> tuple[type["SpecError"], tuple[tuple[Fault, ...], str]]:
        return SpecError, (self.faults, self.source)  # so that worker processes can hand it over


class PluginError(LavieError):
    """A plugin that cannot be imported, registers twice, or is asked for while broken."""


class WeightsError(LavieError, ValueError):
    """Weights that do not belong to the network they are loaded into."""


class VideoError(LavieError, ValueError):
    """A video that cannot be read or written."""


class PromptError(LavieError, ValueError):
    """A prompt that cannot be used, with the reason."""


class OutOfMemoryError(LavieError, MemoryError):
    """What was asked for turns out not to fit into memory."""
