"""Video files: what goes in comes out, whole or not at all."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lavie.errors import VideoError
from lavie.video import enlarge, read_comment, read_video, to_frames, to_video, write_video

RED, DARK = (230, 40, 30), (20, 20, 24)
COMMENT = '{"prompt": "a \\"red\\" circle", "pad": "' + "x" * 600 + '"}'


def disc(num_frames: int = 16, height: int = 64, width: int = 64) -> np.ndarray:
    """A red disc moving right on a dark ground."""
    frames = np.full((num_frames, height, width, 3), DARK, np.uint8)
    y, x = np.mgrid[:height, :width]
    for index, frame in enumerate(frames):
        frame[(x - 10 - 3 * index) ** 2 + (y - height / 2) ** 2 < 10**2] = RED
    return frames


def worst(frames: np.ndarray, others: np.ndarray) -> int:
    return int(np.abs(frames.astype(int) - others).max())


@pytest.mark.parametrize("fps", [1, 7.5, 8, 24, 30000 / 1001])
@pytest.mark.parametrize("ending", ["mp4", "webm", "gif", "frames"])
def test_size_count_rate_and_comment_survive_a_file(tmp_path: Path, ending: str, fps: float) -> None:
    path = tmp_path / f"video.{ending}"
    write_video(path, disc(9, 32, 48), fps, COMMENT)
    video = read_video(path)
    assert video.frames.shape == (9, 32, 48, 3)
    assert video.fps == pytest.approx(fps, abs=0.05 if ending == "gif" else 1e-3)
    assert video.comment == read_comment(path) == COMMENT


@pytest.mark.parametrize("ending", ["mp4", "webm"])
def test_flat_colours_are_kept_and_doubled_pixels_are_crisp(tmp_path: Path, ending: str) -> None:
    frames = enlarge(disc(), 2)
    write_video(tmp_path / f"video.{ending}", frames, 8)
    back = read_video(tmp_path / f"video.{ending}").frames
    assert worst(back[0, 0, 0], np.array(DARK)) <= 2
    assert worst(back[0, 64, 20], np.array(RED)) <= 3
    error = np.square(back.astype(float) - frames).mean()
    assert 10 * np.log10(255**2 / error) > 40


def test_gif_of_few_colours_is_exact(tmp_path: Path) -> None:
    write_video(tmp_path / "video.gif", disc(), 8)
    assert worst(read_video(tmp_path / "video.gif").frames, disc()) == 0


def test_a_folder_of_pictures_is_exact(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), np.uint8)
    write_video(tmp_path / "video.frames", frames, 8)
    assert worst(read_video(tmp_path / "video.frames").frames, frames) == 0
    assert sorted(os.listdir(tmp_path / "video.frames")) == ["00000.png", "00001.png", "00002.png"]


def test_a_still_gif_keeps_every_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "video.gif", disc(1).repeat(5, axis=0), 8)
    assert len(read_video(tmp_path / "video.gif").frames) == 5


def test_gif_repeats_for_ever(tmp_path: Path) -> None:
    write_video(tmp_path / "video.gif", disc(2), 8)
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in (tmp_path / "video.gif").read_bytes()


@pytest.mark.parametrize("num_frames", [1, 2])
def test_very_short_videos_are_written(tmp_path: Path, num_frames: int) -> None:
    for ending in ("mp4", "webm", "gif", "frames"):
        write_video(tmp_path / f"video.{ending}", disc(num_frames), 8)
        assert len(read_video(tmp_path / f"video.{ending}").frames) == num_frames


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "h264"), ("webm", "vp9")])
def test_mp4_and_webm_are_what_browsers_play(tmp_path: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"video.{ending}"
    write_video(path, disc(), 8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name == codec
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (int(stream.codec_context.colorspace), int(stream.codec_context.color_range)) == (1, 1)
        assert len(container.streams) == 1
    data = path.read_bytes()
    index, content = (b"moov", b"mdat") if ending == "mp4" else (b"\x42\x82\x84webm", b"\x1f\x43\xb6\x75")
    assert 0 < data.find(index) < data.find(content)


@pytest.mark.parametrize("ending", ["mp4", "webm", "gif", "frames"])
def test_same_frames_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 128, 128, 3), np.uint8)
    written = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.{ending}"
        write_video(path, frames, 8, COMMENT)
        written.append([file.read_bytes() for file in sorted(path.iterdir())] if path.is_dir() else path.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("name", "shape", "fps", "message"),
    [
        ("a.avi", (2, 8, 8, 3), 8, r"a\.avi: cannot write \.avi; use \.mp4, \.webm, \.gif, or \.frames for a folder"),
        ("a", (2, 8, 8, 3), 8, "a file without an ending"),
        ("a.mp4", (2, 7, 8, 3), 8, "even height and width, got 7×8"),
        ("a.mp4", (0, 8, 8, 3), 8, "without frames"),
        ("a.mp4", (2, 8, 8, 3), 0, "0 frames per second"),
        ("a.mp4", (2, 8, 8, 3), float("nan"), "nan frames per second"),
        ("a.gif", (2, 8, 8, 3), 60, "60 frames per second; must be above 0 and at most 50"),
        ("a.mp4", (1, 2, 16386, 3), 8, "2×16386 pixels"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], fps: float, message: str
) -> None:
    with pytest.raises(VideoError, match=message):
        write_video(tmp_path / name, np.zeros(shape, np.uint8), fps)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    path = tmp_path / "video.gif"
    path.write_text("old")
    write_video(path, disc(2), 8)
    assert len(read_video(path).frames) == 2
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match=r"folder\.mp4: cannot be written: Is a directory"):
        write_video(tmp_path / "folder.mp4", disc(2), 8)
    assert sorted(os.listdir(tmp_path)) == ["folder.mp4", "video.gif"]


@pytest.mark.parametrize("ending", ["mp4", "webm", "gif"])
def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"video.{ending}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted(), 8)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "old"


def interrupted() -> Iterator[np.ndarray]:
    """One picture, and then Ctrl-C."""
    yield disc(1)[0]
    raise KeyboardInterrupt


def test_an_interrupt_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "video.frames"
    write_video(path, disc(3), 8)
    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted(), 8)
    assert os.listdir(tmp_path) == [path.name]
    assert len(read_video(path).frames) == 3
    write_video(path, disc(2), 8)
    assert len(read_video(path).frames) == 2


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "video.frames"
    path.mkdir()
    (path / "thesis.txt").write_text("the only copy")
    with pytest.raises(VideoError, match=r"video\.frames: cannot be replaced: thesis\.txt in it is no frame"):
        write_video(path, disc(2), 8)
    assert (path / "thesis.txt").read_text() == "the only copy"


@pytest.mark.parametrize("ending", ["mp4", "webm", "gif", "frames"])
def test_pictures_are_taken_one_by_one_and_what_goes_wrong_between_them_leaves_nothing(
    tmp_path: Path, ending: str
) -> None:
    def pictures() -> Iterator[np.ndarray]:
        yield from disc(3)
        raise VideoError("the third was the last")

    with pytest.raises(VideoError, match="the third was the last"):
        write_video(tmp_path / f"video.{ending}", pictures(), 8)
    with pytest.raises(VideoError, match="frames of several sizes"):
        write_video(tmp_path / f"video.{ending}", iter([*disc(2), *disc(1, 32, 32)]), 8)
    assert not list(tmp_path.iterdir())


def limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np; from pathlib import Path; from lavie.video import write_video\n"
        "frames = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), np.uint8)\n"
        "for name in sys.argv[1:]:\n    try:\n        write_video(Path(name), frames, 8)\n"
        "    except ValueError as error:\n        print(type(error).__name__, error)"
    )
    paths = [str(tmp_path / f"video.{ending}") for ending in ("mp4", "webm", "gif", "frames")]
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, preexec_fn=limit_file_size, check=True
    )
    assert done.stdout.splitlines() == [f"VideoError {path}: cannot be written: File too large" for path in paths]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_damaged_files_are_refused_by_name_or_read_whole(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"video.{ending}"
    write_video(path, disc(4, 32, 32), 8, COMMENT)
    data, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data[: random.integers(0, len(data))] if random.random() < 0.5 else data)
        for _ in range(8 if damaged else 0):
            damaged[random.integers(len(damaged))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            outcome = str(len(read_video(path, max_pixels=10**6).frames))
        except VideoError as error:
            outcome = str(error)
        assert outcome == "4" or str(path) in outcome


def test_a_webm_cut_short_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "video.webm"
    write_video(path, disc(4, 32, 32), 8, COMMENT)
    data, random = path.read_bytes(), np.random.default_rng(0)
    for length in (0, 1, 40, 60, len(data) - 1, *random.integers(0, len(data), 40).tolist()):
        path.write_bytes(data[:length])
        with pytest.raises(VideoError, match=re.escape(str(path))):
            read_video(path)
    for _ in range(40):
        damaged = bytearray(data)
        damaged[random.integers(len(damaged))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            outcome = str(len(read_video(path, max_pixels=10**6).frames))
        except VideoError as error:
            outcome = str(error)
        assert outcome in "1234" or str(path) in outcome


def test_only_local_video_files_are_opened(tmp_path: Path) -> None:
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    for path, message in [
        (playlist, "cannot be read: Invalid"),
        (tmp_path, "no pictures in this folder"),
        (tmp_path / "none.mp4", "no such file"),
        (Path("http://localhost/a.mp4"), "no such file"),
    ]:
        with pytest.raises(VideoError, match=message):
            read_video(path)


def test_a_file_is_read_no_further_than_allowed(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", disc(9, 32, 32), 8)
    with pytest.raises(VideoError, match="more than 4,096 pixels in all"):
        read_video(tmp_path / "video.mp4", max_pixels=4 * 32 * 32)


def test_paths_are_never_taken_for_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pipe:1.mp4", "-.mp4", "%d.mp4", "é ☂ '\".gif"):
        write_video(Path(name), disc(2, 16, 16), 8)
        assert len(read_video(Path(name)).frames) == 2
    assert len(os.listdir(tmp_path)) == 4


def test_pixels_and_bytes_are_inverse() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
    video = to_video(frames)
    assert video.shape == (3, 3, 4, 6)
    assert float(video.abs().max()) <= 1
    assert (to_frames(video) == frames).all()


def test_pixels_out_of_range_are_clipped_and_those_that_are_no_numbers_refused() -> None:
    frames = to_frames(torch.tensor([-3.0, 3.0]).repeat(3, 1, 1, 1))
    assert frames.min() == 0
    assert frames.max() == 255
    with pytest.raises(VideoError, match="no numbers"):
        to_frames(torch.full((3, 1, 2, 2), float("nan")))


def encode(path: Path, codec: str, frames: np.ndarray, first: int = 0, **options: str) -> None:
    """Write a file as other programs do; frames before number 0 are stored, and not shown."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.max_b_frames = 0
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number + first
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_what_a_cut_hides_is_not_read(tmp_path: Path) -> None:
    """Programs that cut without encoding anew store frames from the last key frame on, and mark what is not shown."""
    grey = np.arange(10, dtype=np.uint8).repeat(64 * 64 * 3).reshape(10, 64, 64, 3) * 20
    encode(tmp_path / "cut.mp4", "libx264", grey, first=-3, avoid_negative_ts="disabled")
    video = read_video(tmp_path / "cut.mp4")
    assert video.fps == 25
    assert video.frames.shape[0] == 7
    assert worst(video.frames[:, 0, 0, 0], grey[3:, 0, 0, 0]) <= 2


@pytest.mark.parametrize("ending", ["mpg", "ts", "avi", "mkv"])
def test_files_of_other_formats_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"video.{ending}"
    encode(path, "mpeg2video", disc(9))
    video = read_video(path)
    assert (video.frames.shape, video.fps) == ((9, 64, 64, 3), 25)
    assert worst(video.frames[4, 32, 22], np.array(RED)) < 30
