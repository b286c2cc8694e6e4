"""A generated video is decoded and written a few frames at a time, and never held whole."""

import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from lavie.errors import OutOfMemoryError, VideoError
from lavie.generation.generated import GeneratedVideo
from lavie.generation.record import Recipe, Record, read_record
from lavie.stages import LazyVideo
from lavie.video import read_video

SIDE, AT_ONCE = 32, 4
FORMATS = ["mp4", "webm", "gif", "frames"]


class Watched(LazyVideo):
    """Frames of one colour each; it knows how many of the pixels it has handed out are still held."""

    def __init__(self, num_frames: int, side: int = SIDE, fails_at: int | None = None) -> None:
        self.batch_size, self.num_frames, self.height, self.width, self.fps = 1, num_frames, side, side, 8.0
        self.fails_at = fails_at
        self.out: list[tuple[int, weakref.ref[Tensor]]] = []
        self.most = 0
        self.asked: list[int] = []

    def frames(self, start: int, stop: int) -> Float[Tensor, "b 3 n h w"]:
        if self.fails_at is not None and stop > self.fails_at:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        values = (torch.arange(start, stop) / self.num_frames)[:, None, None]
        pixels = values.expand(3, -1, self.height, self.width).clone()[None]
        self.out.append((stop - start, weakref.ref(pixels)))
        self.asked += range(start, stop)
        self.most = max(self.most, sum(count for count, each in self.out if each() is not None))
        return pixels

    def encode(self, *_: object) -> Float[Tensor, "b c f p q"]:
        raise NotImplementedError

    def select(self, frames: Sequence[int]) -> "Watched":
        raise NotImplementedError

    def split(self) -> Sequence["Watched"]:
        return [self]


def generated(source: LazyVideo) -> GeneratedVideo:
    recipe = Recipe(prompt="a star", spec_hash="0")
    return GeneratedVideo(source, Record(recipe=recipe, spec={}, environment={"device": "cpu"}), "use a smaller size")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make AT_ONCE frames as many as are decoded at a time."""
    monkeypatch.setattr("lavie.stages.lazy_video.CHUNK_PIXELS", AT_ONCE * SIDE**2)


@pytest.mark.parametrize("ending", FORMATS)
def test_no_more_than_a_few_frames_are_pixels_at_once(tmp_path: Path, ending: str) -> None:
    source = Watched(3 * AT_ONCE + 1)
    path = generated(source).save(tmp_path / f"video.{ending}")
    assert source.asked == list(range(source.num_frames))
    assert source.most <= 2 * AT_ONCE  # the next chunk is made before the last picture of the one before is let go
    kept = read_video(path, keep=lambda number, picture: picture[:1, :1]).frames
    expected = np.round((np.arange(source.num_frames) / source.num_frames + 1) * 127.5)
    assert np.abs(kept[:, 0, 0, 0] - expected).max() <= 3


def test_every_frame_is_told_once_it_is_written_and_before_it_is_enlarged(tmp_path: Path) -> None:
    told: list[tuple[int, tuple[int, ...]]] = []
    video = generated(Watched(5, 16))
    video.save(tmp_path / "video.gif", scale=2, on_frame=lambda number, picture: told.append((number, picture.shape)))
    assert told == [(number, (16, 16, 3)) for number in range(5)]
    assert read_video(tmp_path / "video.gif").frames.shape == (5, 32, 32, 3)


@pytest.mark.parametrize("ending", FORMATS)
def test_too_little_memory_while_decoding_is_told_with_the_remedy_and_leaves_nothing(
    tmp_path: Path, ending: str
) -> None:
    with pytest.raises(OutOfMemoryError, match="out of memory on cpu while decoding: use a smaller size"):
        generated(Watched(3 * AT_ONCE, fails_at=2 * AT_ONCE)).save(tmp_path / f"video.{ending}")
    assert not list(tmp_path.iterdir())


def test_the_time_of_writing_is_recorded_beside_the_video_and_not_inside(tmp_path: Path) -> None:
    path = generated(Watched(2, 16)).save(tmp_path / "video.webm")
    assert set(read_record(path).seconds) == {"write"}
    path.with_name("video.webm.json").unlink()
    assert read_record(path).seconds == {}


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_holds_the_record(tmp_path: Path, ending: str) -> None:
    path = generated(Watched(2, 16)).save(tmp_path / f"video.{ending}")
    path.with_name(f"{path.name}.json").unlink()
    assert read_record(path).recipe == Recipe(prompt="a star", spec_hash="0")


def test_pixels_that_are_no_numbers_are_refused_wherever_they_are(tmp_path: Path) -> None:
    class Broken(Watched):
        def frames(self, start: int, stop: int) -> Float[Tensor, "b 3 n h w"]:
            pixels = super().frames(start, stop)
            pixels[:, :, -1] = torch.nan
            return pixels

    with pytest.raises(VideoError, match="no numbers"):
        generated(Broken(2, 16)).save(tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())
