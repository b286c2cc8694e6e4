"""Published files in a folder become the stages' weights: found by content, converted once, the same to the bit."""

import json
import shutil
from collections import namedtuple
from math import prod
from pathlib import Path

import pytest
import torch
from published import names_here, unpickled_here
from safetensors.torch import load_file
from small_published import FILES, save_all, small_cascade, write_file, write_published

from lavie.errors import WeightsError
from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import Request, StageSpec, load_stage
from lavie.stages import pretrained as module
from lavie.stages.pretrained import CONVERTED, PUBLISHED, pretrained_weights
from lavie.weights.files import read_manifest, sha256
from lavie.weights.ledger import Ledger
from lavie.weights.published import Need, choose
from lavie.weights.source import PARTS
from lavie.weights.survey import survey

GOLDEN = Path(__file__).parents[1] / "golden"
MANIFESTS = {
    "base": "1.safetensors",
    "interpolation": "2.safetensors",
    "vsr": "3.safetensors",
    "sd14_unet": "sd/unet.safetensors",
    "x4_unet": "x4/unet.safetensors",
    "vae_sd14_legacy_names": "sd/vae.safetensors",
    "vae_x4_legacy_names": "x4/vae.safetensors",
    "clip_l14_text": "sd/text.safetensors",
    "clip_h14_text": "x4/text.safetensors",
}
"""The published networks, and files of their sizes."""


def write_blank(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a safetensors file of nothing but a header: the rest is a hole that takes no room."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read our own pickles in this process."""
    monkeypatch.setattr("lavie.weights.source.unpickled", unpickled_here)
    monkeypatch.setattr("lavie.weights.source.names_in", names_here)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the specs, `published`, and the same weights as folders of lavie in `own`."""
    folder = tmp_path_factory.mktemp("written")
    spec = small_cascade(folder)
    save_all(write_published(folder / "published", spec), spec, folder / "own")
    return folder


@pytest.fixture
def files(written: Path, tmp_path: Path) -> Path:
    """A copy of the published files."""
    return shutil.copytree(written / "published", tmp_path / "published")


@pytest.fixture
def base_files(written: Path, tmp_path: Path) -> Path:
    """A copy of those that the base stage needs."""
    others = shutil.ignore_patterns("lavie_interpolation.pt", "more", "x4")
    return shutil.copytree(written / "published", tmp_path / "published", ignore=others)


def found(spec: StageSpec, files: Path, notes: list[str] | None = None, **options: object) -> dict[str, Path]:
    notes = [] if notes is None else notes
    return pretrained_weights(spec, files, registry=installed(), on_note=notes.append, **options)  # type: ignore[arg-type]


def refusal(spec: StageSpec, files: Path, **options: object) -> str:
    with pytest.raises(WeightsError) as error:
        found(spec, files, **options)
    return str(error.value)


def test_a_cascade_makes_the_same_video_from_published_files_as_from_its_own(written: Path, files: Path) -> None:
    spec = small_cascade(written)
    weights = found(spec, files)
    for name, folder in weights.items():
        mine, theirs = (load_file(each / "model.safetensors") for each in (folder, written / "own" / name))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    videos = [
        load_stage(spec, each).generate([Request("a red circle", seed=3)]).video()
        for each in (weights, {name: written / "own" / name for name in spec.parts()})
    ]
    assert videos[0].isfinite().all()
    assert torch.equal(*videos)


def test_files_are_converted_once_and_stages_of_several_specs_share_what_was(written: Path, files: Path) -> None:
    spec, notes = small_cascade(written), list[str]()
    first = found(spec, files, notes)
    assert [note.split(" to ")[0] for note in notes] == [
        "converting lavie_base.pt, sd/vae, sd/text_encoder",
        "converting lavie_interpolation.pt, sd/vae, sd/text_encoder",
        "converting more/lavie_vsr.pt, x4/vae, x4/text_encoder",
    ]
    assert {folder.parent for folder in first.values()} == {files / CONVERTED}
    notes.clear()
    assert found(spec, files, notes) == first
    assert found(spec.base, files, notes) == {"": first["base"]}
    changed = small_cascade(written, "base.video.num_frames=4", "upscaling.sampler.num_inference_steps=1")
    assert found(changed, files, notes, plain=spec) == first
    assert notes == []


def test_a_folder_remembers_its_files_and_the_spec_before_it_was_changed(written: Path, base_files: Path) -> None:
    spec = small_cascade(written)
    changed = small_cascade(written, "base.video.num_frames=4")
    manifest = read_manifest(found(changed.base, base_files, plain=spec.base)[""])
    names = ("lavie_base.pt", "sd/vae/diffusion_pytorch_model.safetensors", "sd/text_encoder/pytorch_model.bin")
    assert manifest["sources"] == {name: sha256(base_files / name) for name in names}
    assert manifest["spec"]["video"]["num_frames"] == 2
    assert manifest["origin"]["denoiser"]["container"] == "ema"


def test_nothing_depends_on_names(written: Path, tmp_path: Path) -> None:
    for number, name in enumerate(sorted(FILES)):
        source, place = written / "published" / name, tmp_path / "files" / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place / f"file-{number}.{'bin' if source.suffix == '.pt' else 'ckpt'}")
    spec = small_cascade(written)
    weights = found(spec, tmp_path / "files")
    for name, folder in weights.items():
        assert sha256(folder / "model.safetensors") == sha256(written / "own" / name / "model.safetensors")


def test_a_file_that_changed_is_converted_anew(written: Path, base_files: Path) -> None:
    spec = small_cascade(written).base
    before, path = found(spec, base_files)[""], base_files / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["quant_conv.bias"] += 1
    write_file(path, tensors)
    after = found(spec, base_files)[""]
    assert after != before
    bias = "autoencoder.quant_conv.bias"
    assert torch.equal(load_file(after / "model.safetensors")[bias], load_file(before / "model.safetensors")[bias] + 1)


def test_what_was_cut_short_is_converted_anew(written: Path, base_files: Path) -> None:
    spec = small_cascade(written).base
    folder = found(spec, base_files)[""]
    whole = sha256(folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes(b"cut")
    assert found(spec, base_files) == {"": folder}
    assert sha256(folder / "model.safetensors") == whole


def test_all_that_is_missing_is_told_at_once_with_what_comes_nearest(written: Path, files: Path) -> None:
    spec = small_cascade(written)
    (files / "more" / "lavie_vsr.pt").unlink()
    shutil.rmtree(files / "sd" / "text_encoder")
    (files / "notes.bin").write_text("no tensors")
    lines = refusal(spec, files).splitlines()
    assert lines[0] == f"{files} does not hold what is needed:"
    assert [line.split(": no file")[0] for line in lines[1:4]] == [
        "base: text_encoder",
        "interpolation: text_encoder",
        "upscaling: denoiser",
    ]
    assert "nearest is x4/text_encoder, with " in lines[1]
    assert "config.json says num_layers 2, the spec 1" in lines[1]
    assert "nearest is lavie_" in lines[3]
    assert "missing; ... and " in lines[3]
    assert lines[4].startswith(f"not used: {files / 'notes.bin'} cannot be read: it is no zip archive")
    assert not (files / CONVERTED).exists()


def test_the_published_names_of_what_is_missing_are_told(tmp_path: Path) -> None:
    spec = load_spec("cascade", installed(), (), "stage")
    assert isinstance(spec, StageSpec)
    lines = refusal(spec, tmp_path).splitlines()[1:]
    sizes = (814, 248, 196, 798, 248, 196, 1141, 204, 372)
    expected = [
        f"{stage}: {part}: no file has its {size} tensors. Download {PUBLISHED[stage][part]} into the folder"
        for size, (stage, part) in zip(sizes, [(name, part) for name in PUBLISHED for part in PARTS], strict=True)
    ]
    assert lines == expected


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("interpolation", ("2.safetensors", "sd/vae.safetensors", "sd/text.safetensors")),
        pytest.param("base", ("1.safetensors", "sd/vae.safetensors", "sd/text.safetensors"), marks=pytest.mark.slow),
        pytest.param(
            "upscaling", ("3.safetensors", "x4/vae.safetensors", "x4/text.safetensors"), marks=pytest.mark.slow
        ),
    ],
)
def test_the_published_networks_are_found_by_names_and_shapes_alone(
    name: str, places: tuple[str, ...], tmp_path: Path
) -> None:
    for manifest, place in MANIFESTS.items():
        listed = json.loads((GOLDEN / "manifests" / f"{manifest}.json").read_text())
        write_blank(tmp_path / place, {key: tuple(shape) for key, (shape, _) in listed.items()})
    spec = load_spec(name, installed(), (), "stage")
    ledger = Ledger(tmp_path / CONVERTED)
    files = survey(tmp_path, ledger, tmp_path / CONVERTED)
    chosen = choose([Need("", part, spec) for part in PARTS], files, ledger)
    assert [files.name(each.files[0]) for each in chosen.values()] == [*places]


def test_two_that_fit_and_differ_are_refused_and_copies_are_not(written: Path, base_files: Path) -> None:
    spec = small_cascade(written).base
    shutil.copy(base_files / "lavie_base.pt", base_files / "copy.pt")
    once = found(spec, base_files)
    state = torch.load(base_files / "lavie_base.pt", weights_only=True)
    torch.save({key: tensor + 1 for key, tensor in state["ema"].items()}, base_files / "tuned.pt")
    text = refusal(spec, base_files)
    assert "denoiser: copy.pt and lavie_base.pt and tuned.pt fit, and differ. Leave one of them there" in text
    (base_files / "tuned.pt").unlink()
    assert read_manifest(found(spec, base_files)[""])["sources"].keys() == read_manifest(once[""])["sources"].keys()


def test_of_several_that_fit_the_one_of_the_published_name_is_taken(written: Path, files: Path) -> None:
    state = torch.load(files / "lavie_base.pt", weights_only=True)
    torch.save({key: tensor + 1 for key, tensor in state["ema"].items()}, files / "old_lavie_base.pt")
    ledger = Ledger(files / CONVERTED)
    need = Need("", "denoiser", small_cascade(written).base, "lavie_base.pt")
    chosen = choose([need], survey(files, ledger, files / CONVERTED), ledger)
    assert chosen[need].holding.path == files / "lavie_base.pt"


def test_of_several_that_fit_the_one_in_the_stages_folder_is_taken(written: Path, files: Path) -> None:
    spec = small_cascade(written)
    tensors = load_file(files / "sd" / "vae" / "diffusion_pytorch_model.safetensors")
    for stage in ("base", "interpolation"):
        write_file(files / stage / "vae.safetensors", {key: each + len(stage) for key, each in tensors.items()})
    shutil.rmtree(files / "sd" / "vae")
    weights = found(spec, files)
    assert "base/vae.safetensors" in read_manifest(weights["base"])["sources"]
    assert "interpolation/vae.safetensors" in read_manifest(weights["interpolation"])["sources"]


def test_variants_of_one_file_are_one(written: Path, base_files: Path) -> None:
    spec = small_cascade(written).base
    state = torch.load(base_files / "lavie_base.pt", weights_only=True)["ema"]
    half = {key.removeprefix("module."): tensor.half() for key, tensor in state.items()}
    write_file(base_files / "lavie_base.fp16.safetensors", half)
    write_file(base_files / "lavie_base.safetensors", {key: tensor.float() for key, tensor in half.items()})
    write_file(base_files / "sd" / "vae" / "diffusion_pytorch_model.fp16.bin", {"a": torch.ones(1)})
    sources = read_manifest(found(spec, base_files)[""])["sources"]
    assert [name for name in sources if "lavie" in name] == ["lavie_base.safetensors"]


def test_a_folder_that_cannot_be_written_names_the_remedy_and_another_one_works(
    written: Path, base_files: Path, tmp_path: Path
) -> None:
    spec = small_cascade(written).base
    (base_files / CONVERTED).write_text("in the way")
    text = refusal(spec, base_files)
    assert f"{base_files / CONVERTED} cannot be written: " in text
    assert "--converted names another folder" in text
    folder = found(spec, base_files, converted=tmp_path / "elsewhere")[""]
    assert folder.parent == tmp_path / "elsewhere"
    (base_files / CONVERTED).unlink()


def test_weights_may_be_kept_among_the_published_files_themselves(written: Path, base_files: Path) -> None:
    spec = small_cascade(written).base
    folder = found(spec, base_files, converted=base_files)[""]
    assert folder.parent == base_files
    assert found(spec, base_files, converted=base_files) == {"": folder}


def test_a_full_disk_is_told_before_anything_is_written(
    written: Path, base_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage(1, 1, 1000))
    text = refusal(small_cascade(written).base, base_files)
    assert "has 0.0 MiB free, " in text
    assert "are needed. Make room, or --converted" in text
    assert not list((base_files / CONVERTED).glob("lavie_base*"))


def test_a_disk_that_fills_meanwhile_leaves_nothing_half_written(
    written: Path, base_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lavie.weights.files.save_file", full)
    text = refusal(small_cascade(written).base, base_files)
    assert "cannot be written: " in text
    assert "No space left on device" in text
    assert {path.name for path in (base_files / CONVERTED).iterdir()} <= {"sources.json"}


def test_a_file_that_changes_while_it_is_read_is_refused(
    written: Path, base_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = module.convert

    def changing(*arguments: object) -> object:
        converted = convert(*arguments)  # type: ignore[arg-type]
        with (base_files / "lavie_base.pt").open("ab") as file:
            file.write(b" ")
        return converted

    monkeypatch.setattr(module, "convert", changing)
    assert "changed while being read; run the command again" in refusal(small_cascade(written).base, base_files)


def test_what_is_remembered_of_files_may_be_nonsense(written: Path, base_files: Path) -> None:
    spec = small_cascade(written).base
    folder = found(spec, base_files)
    ledger = base_files / CONVERTED / "sources.json"
    content = json.loads(ledger.read_text())
    for entry in content.values():
        entry["tensors"], entry["sha256"] = {"a": 3}, None
    for text in (json.dumps(content), "{", "[]", json.dumps(dict.fromkeys(content, 7))):
        ledger.write_text(text)
        assert found(spec, base_files) == folder


def test_own_folders_and_missing_folders_are_told(written: Path, tmp_path: Path) -> None:
    spec = small_cascade(written)
    assert "base is a weights folder of lavie, for --weights" in refusal(spec, written / "own")
    assert "is no folder; --pretrained names the one" in refusal(spec, tmp_path / "none")
