from itertools import pairwise
from pathlib import Path

import pytest
import torch
from small_runs import latent_of, run_of, small_stage

from lavie.errors import SpecError
from lavie.stages import Part, Request
from lavie.stages.windows import WindowsSpec, weights, windows

CASES = [(1, 4, 2), (4, 4, 1), (5, 4, 1), (9, 4, 3), (29, 16, 4), (61, 8, 0), (61, 8, 2), (17, 16, 15)]


@pytest.mark.parametrize(("length", "size", "overlap"), CASES)
def test_windows_cover_everything_and_overlap_as_asked(length: int, size: int, overlap: int) -> None:
    spans = windows(length, size, overlap)
    assert spans[0].start == 0
    assert spans[-1].stop == length
    assert all(before.stop - after.start >= overlap for before, after in pairwise(spans))
    assert all(len(span) == min(size, length) for span in (spans if overlap else spans[:-1]))


@pytest.mark.parametrize(("length", "size", "overlap"), CASES)
def test_weights_add_up_to_one_and_are_one_where_a_window_is_alone(length: int, size: int, overlap: int) -> None:
    spans = windows(length, size, overlap)
    total, seen = torch.zeros(length), torch.zeros(length)
    for span, weight in zip(spans, weights(spans), strict=True):
        total[span.start : span.stop] += weight
        seen[span.start : span.stop] += 1
        assert (weight > 0).all()
    torch.testing.assert_close(total, torch.ones(length), rtol=0, atol=1e-6)
    for span, weight in zip(spans, weights(spans), strict=True):
        assert torch.equal(weight[seen[span.start : span.stop] == 1], torch.ones(int((seen[span] == 1).sum())))


def test_windows_without_overlap_are_the_chunks_of_the_release() -> None:
    assert [len(span) for span in windows(61, 8, 0)] == [8] * 7 + [5]


def test_weights_rise_and_fall_in_a_straight_line() -> None:
    first, second = weights([range(6), range(3, 9)])
    torch.testing.assert_close(first, torch.tensor([1, 1, 1, 0.75, 0.5, 0.25]))
    torch.testing.assert_close(second, first.flip(0))


@pytest.mark.parametrize("sampler", ["euler", "ddpm"])
def test_one_window_equals_the_whole_video_at_once_bit_for_bit(tmp_path: Path, sampler: str) -> None:
    change = f"sampler={{type: {sampler}, num_inference_steps: 3}}"
    whole = latent_of(small_stage(tmp_path, change))
    stage = small_stage(
        tmp_path, change, "coverage={type: windows, num_frames: 3, overlap: 1, tile: 8, tile_overlap: 2}"
    )
    assert torch.equal(latent_of(stage), whole)


@torch.inference_mode()
def test_hard_chunks_are_the_videos_that_the_chunks_would_be_alone(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, "video.num_frames=7", "coverage={type: windows, num_frames: 3, overlap: 0}")
    latent = latent_of(stage)
    run = run_of(stage, 7)
    for frames in (range(0, 3), range(3, 6), range(6, 7)):
        alone = run.clip(frames, {})
        assert torch.equal(latent[:, :, frames], alone.sample(alone.denoise(), alone.initial()))


@torch.inference_mode()
def test_what_only_one_window_sees_is_that_windows_own(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, "coverage={type: windows, num_frames: 5, overlap: 2, tile: 8, tile_overlap: 2}")
    run, seen = run_of(stage, 8, 28), []
    run_sample = stage.sampler.steps

    def steps(denoise, initial, noise):  # type: ignore[no-untyped-def]
        seen.append((initial, denoise(initial, 1.0)))
        return run_sample(denoise, initial, noise)

    stage.sampler.steps = steps  # type: ignore[method-assign]
    stage.coverage.latent(run)
    initial, denoised = seen[0]
    corner = Part(range(5), range(8), range(8))
    own = run.denoise(corner)(corner.of(initial), 1.0)
    alone = (slice(None), slice(None), slice(0, 3), slice(0, 6), slice(0, 6))
    torch.testing.assert_close(denoised[alone], own[alone], rtol=0, atol=1e-6)
    assert not torch.allclose(denoised[:, :, :5, :8, :8], own, atol=1e-3)


def test_chunking_does_not_change_the_noise(tmp_path: Path) -> None:
    run = run_of(small_stage(tmp_path), 9)
    whole, noise = run.initial(), run.noise()(1, run.size)
    clip = run.clip(range(4, 9), {})
    assert torch.equal(clip.initial(), whole[:, :, 4:])
    assert torch.equal(clip.noise()(1, clip.size), noise[:, :, 4:])


@pytest.mark.parametrize(
    "coverage",
    [
        "{type: windows, num_frames: 3, overlap: 1, tile: 8, tile_overlap: 2}",
        "{type: free_noise, num_frames: 3, overlap: 1}",
    ],
)
def test_a_video_does_not_depend_on_its_batch(tmp_path: Path, coverage: str) -> None:
    stage = small_stage(tmp_path, f"coverage={coverage}", "video.num_frames=6", "video.width=20")
    one, other = Request("a red circle", seed=3), Request("a blue star >> a red star", seed=4)
    together = latent_of(stage, one, other)
    for index, request in enumerate((one, other)):
        torch.testing.assert_close(together[index], latent_of(stage, request)[0], rtol=0, atol=1e-4)


def test_each_window_is_told_the_text_of_the_segment_that_its_centre_lies_in(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, "video.num_frames=8", "coverage={type: windows, num_frames: 2, overlap: 0}")
    red, blue, both = (
        latent_of(stage, Request(text, seed=3))
        for text in ("a red circle", "a blue star", "a red circle >> a blue star")
    )
    assert torch.equal(both[:, :, :4], red[:, :, :4])
    assert torch.equal(both[:, :, 4:], blue[:, :, 4:])


def test_a_text_said_twice_lasts_twice_as_long(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, "video.num_frames=6", "coverage={type: windows, num_frames: 2, overlap: 0}")
    red = latent_of(stage, Request("a red circle", seed=3))
    travel = latent_of(stage, Request("a red circle >> a red circle >> a blue star", seed=3))
    assert torch.equal(travel[:, :, :4], red[:, :, :4])
    assert not torch.allclose(travel[:, :, 4:], red[:, :, 4:], atol=1e-3)


@pytest.mark.parametrize("coverage", ["at_once", "{type: windows, num_frames: 2, overlap: 0}"])
def test_segments_that_no_window_would_be_told_are_refused(tmp_path: Path, coverage: str) -> None:
    stage = small_stage(tmp_path, "video.num_frames=4", f"coverage={coverage}")
    with pytest.raises(SpecError, match=r"prompt: has 3 segments, but the stage base sees .* give it coverage windows"):
        latent_of(stage, Request("a red circle >> a blue star >> a star"))


def test_words_are_looked_for_in_each_segment(tmp_path: Path) -> None:
    stage = small_stage(tmp_path)
    assert stage.unknown_words("a red circle >> a green star") == ["green"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 4, "overlap": 4}, "overlap: 4 frames of windows of 4"),
        ({"tile": 8}, "tile_overlap: 8 of a tile of 8"),
    ],
)
def test_windows_that_do_not_move_on_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowsSpec(**settings)


@pytest.mark.parametrize("name", ["upscaling", "cascade-official"])
def test_the_shipped_specs_say_how_super_resolution_is_chunked(name: str) -> None:
    from lavie.specfile import load_spec

    spec = load_spec(name)
    coverage = spec.parts()["upscaling"].coverage if name == "cascade-official" else spec.coverage  # type: ignore[attr-defined]
    assert isinstance(coverage, WindowsSpec)
    assert (coverage.num_frames, coverage.overlap) == ((8, 0) if name == "cascade-official" else (8, 2))
