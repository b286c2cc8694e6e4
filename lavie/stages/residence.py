"""When networks have their weights in memory: always, or only while they are at work."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import final

import torch
from torch import nn


class Residence(ABC):
    """Says when the networks of a stage have their weights in memory."""

    @abstractmethod
    def holding(self, network: nn.Module) -> AbstractContextManager[None]:
        """Return a context within which a network has its weights."""

    @abstractmethod
    def release(self) -> bool:
        """Let networks have weights only while they are at work from now on; tell whether that releases any."""


@final
class Always(Residence):
    """All weights are in memory all the time."""

    def holding(self, network: nn.Module) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def release(self) -> bool:
        """Release nothing."""
        return False


@final
class InTurn(Residence):
    """Networks get their weights when they go to work, and lose them when they are done; others keep theirs.

    The weights come from a file every time, so that no memory holds what is not at work. Networks that are to be kept
    lose theirs too once `release` is called.
    """

    def __init__(self) -> None:
        self._load: dict[nn.Module, Callable[[], None]] = {}
        self._users: Counter[nn.Module] = Counter()
        self._kept: set[nn.Module] = set()

    def add(self, network: nn.Module, load: Callable[[], None], *, keep: bool = False) -> None:
        """Let a network get its weights from `load` whenever it goes to work, or now and for good with `keep`."""
        self._load[network] = load
        if keep:
            load()
            self._kept.add(network)
        else:
            network.to("meta")

    def release(self) -> bool:
        """Let networks have weights only while they are at work from now on; tell whether that releases any."""
        idle = [network for network in self._kept if not self._users[network]]
        self._kept.clear()
        for network in idle:
            network.to("meta")
        return bool(idle)

    @contextmanager
    def holding(self, network: nn.Module) -> Iterator[None]:
        """Load the network's weights unless they are there, and release them at the end of the outermost context."""
        if network not in self._load:
            yield
            return
        try:
            if not self._users[network] and network not in self._kept:
                with torch.inference_mode(False):
                    self._load[network]()
            self._users[network] += 1
            yield
        finally:
            self._users[network] = max(self._users[network] - 1, 0)
            if not self._users[network] and network not in self._kept:
                network.to("meta")


__all__ = ["Always", "InTurn", "Residence"]
