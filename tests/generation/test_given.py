"""Frames from files: read, brought to the model's size, put in their places, and part of what names the result."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_cascade import small_cascade
from small_given import given_weights

from lavie.errors import SpecError, VideoError
from lavie.generation.choice import choose_model
from lavie.generation.given import GivenFiles, Wish, rate_path, read_given
from lavie.generation.model import Model
from lavie.generation.outputs import Outputs
from lavie.stages import Given, Request
from lavie.video import Frames, to_frames, write_video

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
OTHER = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds weights of small models, two pictures, and a video of nine frames."""
    folder = tmp_path_factory.mktemp("given")
    given_weights(folder)
    Image.fromarray(PICTURE).save(folder / "a.png")
    Image.fromarray(OTHER).save(folder / "b.png")
    write_video(folder / "nine.frames", nine(), 12)
    return folder


def nine(height: int = 16, width: int = 16) -> Frames:
    return np.stack([np.full((height, width, 3), 20 * number, np.uint8) for number in range(9)])


def model(folder: Path, name: str, *overrides: str) -> Model:
    return choose_model(weights=folder / name, overrides=overrides, device="cpu")


def bytes_of(given: Given) -> Frames:
    return to_frames(given.video.video()[0])


def numbers_of(given: Given) -> list[int]:
    """Return which of the nine frames were taken."""
    return [int(value) // 20 for value in bytes_of(given)[:, 0, 0, 0]]


def read(folder: Path, name: str, wish: Wish | None = None, **files: str) -> tuple[Given, list[str]]:
    notes: list[str] = []
    paths = GivenFiles(**{option: folder / path for option, path in files.items()})
    given = read_given(paths, model(folder, name), wish or Wish(), notes.append)
    assert given is not None
    return given, notes


@pytest.mark.parametrize(
    ("files", "places", "pictures"),
    [
        ({"first_frame": "a.png"}, (0,), [PICTURE]),
        ({"last_frame": "b.png"}, (5,), [OTHER]),
        ({"first_frame": "a.png", "last_frame": "b.png"}, (0, 5), [PICTURE, OTHER]),
    ],
)
def test_pictures_stand_at_the_beginning_and_at_the_end(
    folder: Path, files: dict[str, str], places: tuple[int, ...], pictures: list[Frames]
) -> None:
    given, notes = read(folder, "first", **files)
    assert given.places == places
    assert (bytes_of(given) == np.stack(pictures)).all()
    assert notes == []


def test_a_video_is_continued_from_its_last_frames(folder: Path) -> None:
    given, notes = read(folder, "first", video="nine.frames")
    assert numbers_of(given) == [6, 7, 8]  # half of the six frames that are made
    assert "note: the last 3 of 9 frames of" in notes[0]
    assert model(folder, "first").shape(given).num_frames == 6


def test_frames_are_put_between_and_made_larger_as_many_as_there_are(folder: Path) -> None:
    for name, frames, side in (("between", 17, 16), ("larger", 9, 32)):
        given, _ = read(folder, name, video="nine.frames")
        assert numbers_of(given) == list(range(9))
        shape = model(folder, name).shape(given)
        assert (shape.num_frames, shape.height, shape.width) == (frames, side, side)


def test_so_many_frames_are_taken_as_make_what_was_asked_for(folder: Path) -> None:
    given, notes = read(folder, "between", Wish(num_frames=6), video="nine.frames")
    assert numbers_of(given) == [0, 1, 2]  # 5 frames; with the fourth it were 7
    assert "note: the first 3 of 9 frames of" in notes[0]
    given, _ = read(folder, "larger", Wish(num_frames=4), video="nine.frames")
    assert numbers_of(given) == [0, 1, 2, 3]


def test_the_rate_is_that_of_the_video_where_the_model_has_none_of_its_own(folder: Path) -> None:
    given, notes = read(folder, "larger", video="nine.frames")
    assert model(folder, "larger").shape(given).fps == 12
    given, _ = read(folder, "larger", Wish(fps=5.0), video="nine.frames")
    assert model(folder, "larger").shape(given).fps == 5
    given, notes = read(folder, "between", video="nine.frames")
    assert model(folder, "between").shape(given).fps == 8
    assert "at 8 frames per second it moves slower than" in notes[0]
    assert "--fps 24 keeps it" in notes[0]
    assert read_given(
        GivenFiles(video=folder / "nine.frames"), model(folder, "between", "video.fps=24"), on_note=pytest.fail
    )


def test_the_place_that_says_the_rate_is_that_of_the_last_stage_with_one(folder: Path, tmp_path: Path) -> None:
    assert rate_path(model(folder, "small").spec) == "video.fps"
    assert rate_path(model(folder, "larger").spec) is None
    assert rate_path(small_cascade(tmp_path)) == "interpolation.video.fps"
    assert rate_path(small_cascade(tmp_path, "interpolation=null")) == "base.video.fps"


def test_other_sizes_are_cropped_and_resized_with_a_note(folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "wide.mp4", nine(64, 128), 12)
    given, notes = read(tmp_path, str(folder / "between"), video="wide.mp4")
    assert notes[0] == f"note: {tmp_path / 'wide.mp4'} has 64×128 pixels; cropped and resized to 16×16"
    assert bytes_of(given).shape == (9, 16, 16, 3)
    Image.fromarray(PICTURE.repeat(2, 0).repeat(2, 1)).save(tmp_path / "large.png")
    given, notes = read(tmp_path, str(folder / "first"), first_frame="large.png")
    assert notes[0].endswith("has 32×32 pixels; resized to 16×16")
    assert (bytes_of(given)[0] == PICTURE).all()


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("small", {"first_frame": "a.png"}, "given: small starts from text alone. .* first-frame-tiny"),
        ("small", {"video": "nine.frames"}, "interpolation-tiny and upscaling-tiny"),
        ("between", {}, "given: between makes videos from videos; give it one"),
        ("first", {"video": "nine.frames", "last_frame": "a.png"}, "given: a video is given, so no first"),
    ],
)
def test_what_a_model_cannot_start_from_is_refused(
    folder: Path, name: str, files: dict[str, str], message: str
) -> None:
    paths = GivenFiles(**{option: folder / path for option, path in files.items()})
    with pytest.raises(SpecError, match=message):
        read_given(paths, model(folder, name))


def test_one_frame_cannot_be_first_and_last(folder: Path) -> None:
    single = model(folder, "first", "video.num_frames=1")
    with pytest.raises(SpecError, match="need a video of at least 2 frames; ask for more"):
        read_given(GivenFiles(folder / "a.png", folder / "b.png"), single)


def test_nothing_given_is_nothing(folder: Path) -> None:
    assert read_given(GivenFiles(), model(folder, "small")) is None
    assert read_given(GivenFiles(), model(folder, "first")) is None


def test_files_that_cannot_be_read_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    for option, name, message in [
        ("video", "text.mp4", r"text\.mp4: cannot be read"),
        ("video", "empty", "empty: no pictures in this folder"),
        ("video", "none.mp4", r"none\.mp4: no such file"),
        ("first_frame", "text.mp4", r"text\.mp4: no picture"),
        ("last_frame", "none.png", r"none\.png: no such file"),
    ]:
        with pytest.raises(VideoError, match=message):
            read_given(GivenFiles(**{option: tmp_path / name}), model(folder, "first"))


def test_what_is_given_is_part_of_recipe_and_name(folder: Path) -> None:
    chosen, names, hashes = model(folder, "first"), set(), set()
    for files in (
        {"first_frame": "a.png"},
        {"first_frame": "b.png"},
        {"last_frame": "a.png"},
        {"first_frame": "a.png", "last_frame": "b.png"},
        {"video": "nine.frames"},
    ):
        given, _ = read(folder, "first", **files)
        again, _ = read(folder, "first", **files)
        assert chosen.recipe(Request("a star", given=given)) == chosen.recipe(Request("a star", given=again))
        recipe = chosen.recipe(Request("a star", given=given))
        names.add(Outputs(folder).path(recipe).name)
        hashes.add(recipe.given)
    recipe = chosen.recipe(Request("a star"))
    assert recipe.given == ""
    assert len(names | {Outputs(folder).path(recipe).name}) == 6
    assert len(hashes) == 5


def test_given_frames_change_the_video(folder: Path) -> None:
    chosen = model(folder, "first")
    stage = chosen.load()
    videos = [
        chosen.make(stage, Request("a star", given=given)).video
        for given in (
            read(folder, "first", first_frame="a.png")[0],
            read(folder, "first", first_frame="b.png")[0],
            None,
        )
    ]
    assert not torch.equal(videos[0], videos[1])
    assert not torch.equal(videos[0], videos[2])
