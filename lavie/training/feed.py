"""The clips of each step: counted, not drawn, so that any step can be had without those before it."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from lavie.data.base import Clip
from lavie.training.phase import Batch, Source
from lavie.training.randomness import derived


class _Steps(TorchDataset[dict[str, Batch]]):
    """Maps a step to its batches."""

    def __init__(self, sources: Mapping[str, Source], offsets: Mapping[str, int], num_steps: int) -> None:
        self.sources = sources
        self.offsets = offsets
        self.num_steps = num_steps

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> dict[str, Batch]:
        return {name: stack(self.clips(name, step)) for name in self.sources}

    def clips(self, name: str, step: int) -> list[Clip]:
        """Return the clips of one source: the next `per_step` ones, round and round from a place of its own."""
        source = self.sources[name]
        first = self.offsets[name] + step * source.per_step
        return [source.dataset.clip((first + i) % len(source.dataset)) for i in range(source.per_step)]


def stack(clips: list[Clip]) -> Batch:
    """Stack clips of one shape."""
    return Batch(torch.stack([clip.video for clip in clips]), [c.caption for c in clips], [c.labels for c in clips])


def feed(
    sources: Mapping[str, Source], *, seed: int, phase: str, first_step: int, num_steps: int, num_workers: int
) -> Iterator[dict[str, Batch]]:
    """Yield the batches of steps `first_step` to `num_steps` - 1; the workers' number changes nothing but speed."""
    offsets = {name: derived(seed, phase, "data", name) % len(source.dataset) for name, source in sources.items()}
    steps = _Steps(sources, offsets, num_steps)
    order = range(first_step, num_steps)
    if num_workers == 0:
        return (steps[step] for step in order)
    return iter(
        DataLoader(
            steps,
            batch_size=None,
            collate_fn=_unchanged,
            sampler=order,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(0),
        )
    )


def _unchanged(batches: Any) -> Any:
    return batches
