"""A record tells what made a video, wherever it is kept, and nothing else is taken for one."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_model import small_registry, small_spec

from lavie.errors import VideoError
from lavie.generation.record import (
    MAX_BYTES,
    Recipe,
    Record,
    comment_of,
    environment,
    foreign_components,
    read_record,
    sidecar_of,
    write_sidecar,
)
from lavie.spec import dump, spec_hash
from lavie.stages import StageSpec
from lavie.video import write_video

FRAMES = np.zeros((2, 16, 16, 3), np.uint8)


def record(prompt: str = 'a "red" circle — ☂ \u202e', **changes: object) -> Record:
    recipe = Recipe(prompt=prompt, negative_prompt="blue", seed=2**63 - 1, spec_hash="0" * 12)
    return Record(recipe=recipe, spec={"type": "x"}, seconds={"generate": 1.5}).model_copy(update=changes)


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_the_record_is_kept_beside_the_video_and_inside_it(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"video.{ending}"
    write_video(path, FRAMES, 8, comment_of(record()))
    assert read_record(path) == record(seconds={})
    write_sidecar(path, record())
    assert read_record(path) == read_record(sidecar_of(path)) == record()


def test_time_taken_does_not_change_the_video(tmp_path: Path) -> None:
    assert comment_of(record()) == comment_of(record(seconds={"generate": 99.0}))


def test_the_longest_prompt_fits_into_the_metadata(tmp_path: Path) -> None:
    for ending in ("mp4", "gif"):
        path = tmp_path / f"video.{ending}"
        write_video(path, FRAMES, 8, comment_of(record("😀" * 10_000)))
        assert read_record(path).recipe.prompt == "😀" * 10_000


def test_recipes_name_what_differs() -> None:
    recipe = record().recipe
    assert recipe.differences(recipe.model_copy(update={"seed": 1, "scale": 2})) == ["seed", "scale"]
    assert recipe.differences(recipe.model_copy()) == []


def test_a_recorded_spec_builds_the_same_again(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    kept = Record(recipe=record().recipe, spec=dump(spec))
    write_sidecar(tmp_path / "video.mp4", kept)
    loaded = small_registry().load(StageSpec, read_record(tmp_path / "video.mp4.json").spec)  # type: ignore[type-abstract]
    assert loaded == spec
    assert spec_hash(loaded) == spec_hash(spec)


def test_components_of_other_packages_are_recorded_with_their_version(tmp_path: Path) -> None:
    assert foreign_components(small_spec(tmp_path), small_registry()) == {}
    foreign = small_spec(tmp_path, "text_encoder=any_text")
    assert foreign_components(foreign, small_registry()) == {"text_encoder any_text": "lavie-anytext 1.2"}


def test_the_environment_is_recorded_without_names_of_people_or_machines() -> None:
    assert set(environment("cpu")) == {"lavie", "torch", "python", "platform", "device", "attention"}
    assert environment("cpu")["device"].startswith("cpu (")


def test_keys_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    data = record().model_dump(mode="json")
    data["mood"] = data["recipe"]["mood"] = "fine"
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert read_record(tmp_path / "a.json") == record()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "[" * 100_000,
        '{"format": "lavie-record-2"}',
        json.dumps({**record().model_dump(mode="json"), "recipe": {"prompt": 3, "spec_hash": ""}}),
        json.dumps({**record().model_dump(mode="json"), "recipe": {"prompt": "", "spec_hash": "", "seed": -1}}),
        '{"spec": ' + "1" * 5000 + "}",
        " " * (MAX_BYTES + 1),
        "\udcff",
    ],
)
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(VideoError, match=r"a\.json: (holds no record of lavie|larger than)"):
        read_record(path)


def test_videos_without_a_record_and_missing_files_are_named(tmp_path: Path) -> None:
    write_video(tmp_path / "foreign.mp4", FRAMES, 8, "made by someone else")
    write_video(tmp_path / "bare.gif", FRAMES, 8)
    for name, message in [
        ("foreign.mp4", "holds no record"),
        ("bare.gif", "holds no record"),
        ("none.mp4", "no such file"),
        ("none.json", "no such file"),
    ]:
        with pytest.raises(VideoError, match=rf"{name}.*{message}"):
            read_record(tmp_path / name)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(VideoError, match=r"folder\.json: cannot be read: Is a directory"):
        read_record(tmp_path / "folder.json")
