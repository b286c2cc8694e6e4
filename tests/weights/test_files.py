import json
import os
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from lavie.errors import WeightsError
from lavie.spec import Spec
from lavie.weights import files, loading
from lavie.weights.files import check_bytes, header, read_manifest, sweep, write_folder, write_text
from lavie.weights.loading import load_into
from lavie.weights.stored import save_stage


class ToySpec(Spec):
    """A spec to be written down."""

    type: Literal["toy"] = "toy"
    width: int = 3


def modules(width: int = 3) -> dict[str, nn.Module]:
    return {"denoiser": nn.Conv2d(2, width, 3), "text_encoder": nn.BatchNorm1d(4)}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict[str, nn.Module]]:
    parts = modules()
    save_stage(parts, ToySpec(), tmp_path / "weights")
    return tmp_path / "weights", parts


def assert_same(one: dict[str, nn.Module], other: dict[str, nn.Module]) -> None:
    for name, module in one.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, other[name].state_dict()[key])


def test_weights_survive_a_round_trip(saved: tuple[Path, dict[str, nn.Module]]) -> None:
    folder, parts = saved
    fresh = modules()
    load_into(fresh, folder)
    assert_same(parts, fresh)


def test_loading_keeps_the_memory_format_and_the_parameters(saved: tuple[Path, dict[str, nn.Module]]) -> None:
    folder, parts = saved
    fresh = modules()
    fresh["denoiser"].to(memory_format=torch.channels_last)
    weight = dict(fresh["denoiser"].named_parameters())["weight"]
    load_into(fresh, folder)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, dict(parts["denoiser"].named_parameters())["weight"])


def test_modules_on_the_meta_device_take_the_weights_over(saved: tuple[Path, dict[str, nn.Module]]) -> None:
    folder, parts = saved
    with torch.device("meta"):
        fresh = modules()
    load_into(fresh, folder)
    assert_same(parts, fresh)


def test_half_precision_halves_the_file_and_loads_into_full(tmp_path: Path) -> None:
    parts: dict[str, nn.Module] = {"denoiser": nn.Linear(100, 100)}
    save_stage(parts, ToySpec(), tmp_path / "full")
    save_stage(parts, ToySpec(), tmp_path / "half", torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.55 * sizes[0]
    fresh: dict[str, nn.Module] = {"denoiser": nn.Linear(100, 100)}
    load_into(fresh, tmp_path / "half")
    for key, value in fresh["denoiser"].state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, parts["denoiser"].state_dict()[key].half().float())


def test_whole_numbers_stay_whole_in_half_precision(tmp_path: Path) -> None:
    save_stage(modules(), ToySpec(), tmp_path / "half", torch.float16)
    kept = header(tmp_path / "half" / "model.safetensors")
    assert kept["text_encoder.num_batches_tracked"] == ((), torch.int64)
    assert kept["denoiser.weight"] == ((3, 2, 3, 3), torch.float16)


def test_the_manifest_says_what_the_file_is(saved: tuple[Path, dict[str, nn.Module]]) -> None:
    manifest = read_manifest(saved[0])
    assert manifest["spec"] == {"type": "toy", "width": 3}
    assert manifest["versions"]["torch"] == torch.__version__
    entry = manifest["files"]["model.safetensors"]
    assert entry["tensors"]["denoiser.weight"] == [3, 2, 3, 3]
    assert entry["sha256"] == files.sha256(saved[0] / "model.safetensors")


def test_weights_of_another_shape_are_refused_before_data_is_read(
    saved: tuple[Path, dict[str, nn.Module]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "safe_open", lambda path, **options: pytest.fail("data was read"))
    with pytest.raises(
        WeightsError, match=r"denoiser\.weight: shape \[3, 2, 3, 3\] where the network has \[5, 2, 3, 3\]"
    ):
        load_into(modules(width=5), saved[0])


def test_missing_and_foreign_tensors_are_named(saved: tuple[Path, dict[str, nn.Module]]) -> None:
    with pytest.raises(WeightsError, match=r"autoencoder\.weight: missing(.|\n)*text_encoder\.\w+: not part"):
        load_into({"denoiser": nn.Conv2d(2, 3, 3), "autoencoder": nn.Linear(1, 1)}, saved[0])


def test_parts_can_be_loaded_alone_when_asked(saved: tuple[Path, dict[str, nn.Module]]) -> None:
    folder, parts = saved
    fresh = {"denoiser": modules()["denoiser"]}
    with pytest.raises(WeightsError, match="not part of the network"):
        load_into(fresh, folder)
    load_into(fresh, folder, partly=True)
    assert_same(fresh, parts)


@pytest.mark.parametrize("damage", ["flip", "truncate", "splice", "header", "empty", "missing"])
def test_damaged_files_are_refused_and_nothing_is_loaded(saved: tuple[Path, dict[str, nn.Module]], damage: str) -> None:
    path = saved[0] / "model.safetensors"
    intact = path.read_bytes()
    changed = {
        "flip": intact[:-5] + bytes([intact[-5] ^ 64]) + intact[-4:],
        "truncate": intact[:-7],
        "splice": intact + intact[-9:],
        "header": intact[:20] + b"\xff" + intact[21:],
        "empty": b"",
        "missing": None,
    }[damage]
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    fresh = modules()
    before = {name: value.clone() for name, value in fresh["denoiser"].state_dict().items()}
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_into(fresh, saved[0])
    assert all(torch.equal(value, before[name]) for name, value in fresh["denoiser"].state_dict().items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[]", "is no manifest"),
        ("{}", "is no manifest"),
        ('{"files": {}}', "format version None"),
        ('{"files": {}, "format_version": 99}', "format version 99; this lavie reads 1"),
        ('{"files": {"model.safetensors": 3}, "format_version": 1}', "is no manifest"),
    ],
)
def test_a_manifest_that_is_none_is_refused(saved: tuple[Path, dict[str, nn.Module]], text: str, message: str) -> None:
    (saved[0] / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        load_into(modules(), saved[0])


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no manifest\.json"):
        load_into(modules(), tmp_path)


def test_files_not_in_the_manifest_do_not_pass(saved: tuple[Path, dict[str, nn.Module]]) -> None:
    with pytest.raises(WeightsError, match="missing"):
        check_bytes(saved[0], ["other.safetensors"])


def test_an_existing_folder_is_kept_unless_told_otherwise(saved: tuple[Path, dict[str, nn.Module]]) -> None:
    folder, parts = saved
    other = modules()
    with pytest.raises(FileExistsError, match="exists already"):
        save_stage(other, ToySpec(), folder)
    fresh = modules()
    load_into(fresh, folder)
    assert_same(parts, fresh)
    save_stage(other, ToySpec(), folder, overwrite=True)
    load_into(fresh, folder)
    assert_same(other, fresh)


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_stage(modules(), ToySpec(), tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []


def test_at_no_moment_of_a_save_is_a_half_written_folder_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, seen = os.rename, []

    def watched(source: Path, target: Path) -> None:
        seen.append(sorted(path.name for path in Path(source).iterdir()))
        assert not Path(target).exists()
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    save_stage(modules(), ToySpec(), tmp_path / "weights")
    assert seen == [["manifest.json", "model.safetensors"]]


def test_everything_is_on_disk_before_the_folder_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    write_folder(tmp_path / "weights", {"a.safetensors": {"x": torch.zeros(2)}}, {})
    partial = next(name for name in events if name.startswith(".partial-"))
    assert events == ["a.safetensors", "manifest.json", partial, "rename", tmp_path.name]


def test_only_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    for name in (f".partial-{2**22 + 1}-aaaa", ".partial-1-bbbb", ".partial-me-cccc", "step-00000001"):
        (tmp_path / name).mkdir()
    (tmp_path / f".partial-{2**22 + 1}-file").touch()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-1-bbbb", ".partial-me-cccc", "step-00000001"]


def test_a_text_file_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "latest", "one")
    write_text(tmp_path / "latest", json.dumps("two"))
    assert (tmp_path / "latest").read_text() == '"two"'
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
