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

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(LavieError, ValueError):
    """A spec, override or spec file that does not describe anything lavie can build."""

    def __init__(self, faults: Sequence[Fault], source: str = "") -> None:
        self.faults = tuple(faults)
        self.source = source
        prefix = f"{source}: " if source else ""
        super().__init__("\n".join(f"{prefix}{fault}" for fault in self.faults))


class PluginError(LavieError):
    """A plugin that cannot be imported, registers twice, or is asked for while broken."""


class WeightsError(LavieError, ValueError):
    """Weights that do not belong to the network they are loaded into."""


class VideoError(LavieError, ValueError):
    """A video that cannot be read or written."""


class PromptError(LavieError, ValueError):
    """A prompt that cannot be used, with the reason."""
