"""What tokenizers, datasets and metrics promise."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lavie.blocks.base import Site
from lavie.blocks.tokenizer import Tokenizer, TokenizerSpec
from lavie.data.base import Dataset, DatasetSpec
from lavie.metrics.base import Metric, MetricSpec
from lavie.testing.expect import expect


def check_tokenizer(spec: TokenizerSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Give exactly as many numbers as asked for, all inside the vocabulary, for any prompt."""
    tokenizer = spec.build()
    expect(isinstance(tokenizer, Tokenizer), spec, f"builds {type(tokenizer).__name__}, which is no Tokenizer")
    for prompt in ("", "a red circle moving left", "word " * 100, "naïve 東京 🎈"):
        for max_tokens in (8, 77):
            ids = tokenizer.encode(prompt, max_tokens)
            expect(len(ids) == max_tokens, spec, f"gives {len(ids)} numbers for {prompt!r:.40}, {max_tokens} are due")
            outside = [number for number in ids if not 0 <= number < tokenizer.vocab_size]
            expect(not outside, spec, f"gives {outside[:3]} outside its vocabulary of {tokenizer.vocab_size}")
    expect(not tokenizer.lost_words("", 8), spec, "loses words of an empty prompt")
    expect(bool(tokenizer.lost_words("word " * 100, 8)), spec, "does not tell which words are cut off")


def check_dataset(spec: DatasetSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Give the same clip for the same index, whatever came before, in [-1, 1]."""
    dataset = spec.build()
    expect(isinstance(dataset, Dataset), spec, f"builds {type(dataset).__name__}, which is no Dataset")
    expect(len(dataset) >= 1, spec, "is empty")
    last = len(dataset) - 1
    first, other, again = dataset.clip(0), dataset.clip(last), spec.build().clip(0)
    same = torch.equal(first.video, again.video) and (first.caption, first.labels) == (again.caption, again.labels)
    expect(same, spec, "gives another clip for the same index")
    for clip in (first, other):
        low, high = float(clip.video.min()), float(clip.video.max())
        expect(clip.video.ndim == 4 and max(-low, high) <= 1, spec, f"gives pixels in [{low:g}, {high:g}], not [-1, 1]")
        expect(clip.fps > 0, spec, f"gives {clip.fps} frames per second")
    try:
        dataset.clip(len(dataset))
    except IndexError:
        return
    expect(False, spec, "has no end: clip(len) must raise IndexError")


def check_metric(spec: MetricSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Start empty, so that two metrics of one spec do not share what they have taken in."""
    metric, other = spec.build(), spec.build()
    expect(isinstance(metric, Metric), spec, f"builds {type(metric).__name__}, which is no Metric")
    expect(metric is not other, spec, "builds the same object twice")
