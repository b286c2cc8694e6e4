"""Random draws of training: each a function of the seed, the phase, the step and what it is for, and of nothing else.

So a resumed run draws what the uninterrupted one would have drawn, and no state of a generator is ever saved.
"""

import hashlib

import torch


def derived(*parts: int | str) -> int:
    """Return a number in [0, 2^63) that depends on every part and on their order."""
    digest = hashlib.blake2b("\x1f".join(map(repr, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Draws:
    """The random draws of one step of one phase."""

    def __init__(self, seed: int, phase: str, step: int) -> None:
        self.seed = seed
        self.phase = phase
        self.step = step

    def generator(self, purpose: str) -> torch.Generator:
        """Return a fresh CPU generator for one purpose of this step."""
        return torch.Generator().manual_seed(derived(self.seed, self.phase, self.step, purpose))
