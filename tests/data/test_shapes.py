"""The world of shapes: pure, labelled truthfully, captioned in few words, with combinations held out."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lavie.data.shapes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, VOCABULARY, ShapesSpec, combinations, known, parse
from lavie.data.sprites import SILHOUETTES, coverage, template

CLIPS = 400


def captions(**fields: object) -> list[str]:
    dataset = ShapesSpec.model_validate({"height": 16, "width": 16, **fields}).build()
    return [dataset.clip(index).caption for index in range(CLIPS)]


def presence(video: torch.Tensor) -> np.ndarray:
    """Tell, per frame and pixel, whether the shape covers any of it."""
    return ((video - video[:, :, :1, :1]).abs().sum(dim=0) > 1e-3).numpy()


def test_a_clip_depends_on_its_spec_and_index_alone() -> None:
    one, other = ShapesSpec(seed=3).build(), ShapesSpec(seed=3).build()
    other.clip(11)
    torch.testing.assert_close(one.clip(5).video, other.clip(5).video, rtol=0, atol=0)
    assert one.clip(5).caption == other.clip(5).caption
    assert not torch.equal(one.clip(5).video, one.clip(6).video)
    assert not torch.equal(one.clip(5).video, ShapesSpec(seed=4).build().clip(5).video)


@pytest.mark.parametrize("index", [-1, 7])
def test_clips_outside_the_dataset_are_refused(index: int) -> None:
    dataset = ShapesSpec(num_clips=7).build()
    assert len(dataset) == 7
    with pytest.raises(IndexError, match=f"clip {index} of a dataset of 7 clips"):
        dataset.clip(index)


@pytest.mark.parametrize(("num_frames", "height", "width"), [(1, 64, 64), (2, 32, 32), (16, 48, 80), (5, 33, 16)])
def test_clips_have_the_size_asked_for_and_stay_in_range(num_frames: int, height: int, width: int) -> None:
    dataset = ShapesSpec(num_frames=num_frames, height=height, width=width, fps=4.0).build()
    for index in range(8):
        clip = dataset.clip(index)
        assert clip.video.shape == (3, num_frames, height, width)
        assert clip.video.dtype == torch.float32
        assert clip.video.abs().max() <= 1
        assert clip.fps == 4.0


def test_shapes_stay_inside_the_frame_whatever_they_do() -> None:
    for height, width in ((32, 32), (32, 48), (64, 40)):
        dataset = ShapesSpec(split="seen", height=height, width=width, num_frames=9).build()
        for index in range(60):
            clip = dataset.clip(index)
            shown = presence(clip.video)
            touched = shown[:, 0].sum() + shown[:, -1].sum() + shown[:, :, 0].sum() + shown[:, :, -1].sum()
            assert shown.any(axis=(1, 2)).all()
            # an edge pixel may be covered in part; more would be a shape cut off
            assert touched <= 0.2 * shown.sum(), clip.caption


def test_resolution_changes_only_the_sharpness() -> None:
    small, large = (ShapesSpec(height=side, width=side, num_frames=3).build() for side in (32, 128))
    for index in range(6):
        pooled = torch.nn.functional.avg_pool2d(large.clip(index).video, 4)
        assert (small.clip(index).video - pooled).abs().mean() < 0.01


@pytest.mark.parametrize("name", SHAPES)
def test_coverage_adds_up_to_the_area_wherever_the_shape_stands(name: str) -> None:
    rng = np.random.default_rng(0)
    centers, sizes = rng.uniform(0.35, 0.65, (6, 2)), np.full(6, 0.2)
    area = coverage(SILHOUETTES[name], centers, sizes, 64, 64).mean(axis=(1, 2))
    finer = coverage(SILHOUETTES[name], centers[:1], sizes[:1], 512, 512).mean()
    np.testing.assert_allclose(area, finer, rtol=0.02)


@pytest.mark.parametrize("name", SHAPES)
def test_reach_is_the_largest_extent_of_a_silhouette(name: str) -> None:
    ticks = np.linspace(-2, 2, 801)
    x, y = np.meshgrid(ticks, ticks)
    inside = SILHOUETTES[name].distance(x, y) <= 0
    extent = max(np.abs(x[inside]).max(), np.abs(y[inside]).max())
    assert extent == pytest.approx(SILHOUETTES[name].reach, abs=0.04)
    assert extent <= SILHOUETTES[name].reach + 0.005


def test_no_two_silhouettes_are_much_alike() -> None:
    masks = {name: template(SILHOUETTES[name], 96, 2.2) for name in SHAPES}
    overlaps = {
        (one, other): float((masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum())
        for one, other in itertools.combinations(SHAPES, 2)
    }
    assert max(overlaps.values()) < 0.74, max(overlaps, key=lambda pair: overlaps[pair])


def test_no_background_looks_like_the_colour_of_a_shape() -> None:
    for front, back in itertools.product(COLOURS.values(), BACKGROUNDS.values()):
        assert np.linalg.norm(np.subtract(front, back)) > 0.4


def test_the_vocabulary_is_exactly_what_captions_say() -> None:
    said = {word for spec in ({}, {"split": "seen", "seed": 1}) for line in captions(**spec) for word in line.split()}
    assert said <= set(VOCABULARY)
    assert set(VOCABULARY) - said == set()
    assert len(VOCABULARY) == len(set(VOCABULARY)) <= 48


def test_captions_are_english() -> None:
    articles = "(a (?!orange)|an (?=orange)|the |)"
    colours, backgrounds = "|".join(COLOURS), "|".join([*BACKGROUNDS, "grey"])
    motions = "|".join(itertools.chain(*MOTIONS.values()))
    pattern = rf"{articles}(({colours}) )?({'|'.join(SHAPES)})( ({motions}))?( on a ({backgrounds}) background)?"
    for line in captions():
        assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize("split", ["train", "seen"])
def test_a_caption_never_says_more_or_other_than_what_is_shown(split: str) -> None:
    dataset = ShapesSpec(split=split, height=16, width=16).build()
    said: Counter[str] = Counter()
    for index in range(CLIPS):
        clip = dataset.clip(index)
        read = parse(clip.caption)
        assert read.items() <= clip.labels.items()
        said.update(list(read))
    assert said["shape"] == CLIPS
    assert 0.4 < said["background"] / CLIPS < 0.6
    for attribute in ("colour", "motion"):
        assert said[attribute] == CLIPS if split == "seen" else 0.9 < said[attribute] / CLIPS < 1


def test_captions_and_labels_of_images_never_mention_motion() -> None:
    dataset = ShapesSpec(num_frames=1, height=16, width=16).build()
    for index in range(100):
        clip = dataset.clip(index)
        assert "motion" not in clip.labels
        assert "motion" not in parse(clip.caption)


def test_held_out_combinations_never_appear_in_training() -> None:
    parts = {split: set(combinations(ShapesSpec(split=split))) for split in ("train", "seen", "triples", "pairs")}
    assert parts["train"] == parts["seen"]
    assert [len(parts[split]) for split in ("train", "triples", "pairs")] == [384, 80, 48]
    assert len(parts["train"] | parts["triples"] | parts["pairs"]) == 512
    pairs = {triple[:2] for triple in parts["pairs"]}
    assert len(pairs) == 6
    assert not pairs & {triple[:2] for triple in parts["train"] | parts["triples"]}
    shown = ShapesSpec(height=16, width=16, num_frames=2).build()
    for index in range(CLIPS):
        labels = shown.clip(index).labels
        assert (labels["colour"], labels["shape"], labels["motion"]) in parts["train"]


def test_every_two_attributes_are_still_shown_together() -> None:
    train = combinations(ShapesSpec())
    assert len({(colour, motion) for colour, _, motion in train}) == 64
    assert len({(shape, motion) for _, shape, motion in train}) == 64
    assert len({(colour, shape) for colour, shape, _ in train}) == 58


def test_images_show_the_triples_but_never_the_pairs() -> None:
    assert len(combinations(ShapesSpec(num_frames=1))) == 464
    assert len(combinations(ShapesSpec(num_frames=1, split="pairs"))) == 48


def test_evaluation_takes_every_combination_in_turn() -> None:
    dataset = ShapesSpec(split="pairs", height=16, width=16, num_frames=2).build()
    shown = [tuple(dataset.clip(index).labels[name] for name in ("colour", "shape", "motion")) for index in range(48)]
    assert sorted(shown) == sorted(combinations(dataset.spec))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "pairs", "held_out_pairs": 0}, "split 'pairs' is empty: nothing is held out that way"),
        ({"split": "triples", "num_frames": 1}, "split 'triples' is empty"),
        ({"held_out_triples": 1}, "would leave no video to train on"),
    ],
)
def test_splits_with_nothing_in_them_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ShapesSpec.model_validate(fields)


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [
        ("A red CIRCLE, moving left!", {"colour": "red", "shape": "circle", "motion": "left"}),
        ("the ring circles on a grey background", {"shape": "ring", "motion": "circling", "background": "gray"}),
        ("a star on a blue background", {"shape": "star"}),
        ("a green heart moving to the right", {"colour": "green", "shape": "heart", "motion": "right"}),
        ("a teddy bear walking", {}),
        ("", {}),
    ],
)
def test_prompts_are_read_by_their_known_words(prompt: str, labels: dict[str, str]) -> None:
    assert parse(prompt) == labels


def test_every_known_word_is_read_as_what_it_is() -> None:
    for attribute, words in known().items():
        for word in words:
            phrase = MOTIONS[word][0] if attribute == "motion" else word
            assert parse(f"something {phrase}") == {attribute: word}
