"""What a path holds, seen from its content."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from published import (
    IMAGE,
    LDM,
    official,
    same_bits,
    single_file,
    small_spec,
    unpickled_here,
    write_diffusers,
)
from safetensors.torch import save_file

from lavie.errors import WeightsError
from lavie.weights.source import OWN, Contents, read_source
from lavie.weights.stored import save_stage


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read our own pickles in this process."""
    monkeypatch.setattr("lavie.weights.source.unpickled", unpickled_here)


def read(path: Path) -> Contents:
    with ExitStack() as stack:
        return read_source(path, stack)


def layouts(path: Path) -> dict[str, str]:
    return {each.part: each.layout for each in read(path).holdings}


@pytest.mark.parametrize(
    ("part", "layout"),
    [
        ("denoiser", "official"),
        ("denoiser", "ldm"),
        ("autoencoder", "diffusers"),
        ("autoencoder", "diffusers_old"),
        ("autoencoder", "ldm"),
        ("text_encoder", "transformers"),
        ("text_encoder", "transformers_bare"),
        ("text_encoder", "openclip"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_one_network_is_recognised_by_its_tensors(part, layout, suffix, tmp_path):
    file = official(small_spec(tmp_path, IMAGE), part, layout)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(file, path)
    else:
        save_file({key: tensor.contiguous() for key, tensor in file.items()}, path)
    (holding,) = read(path).holdings
    assert (holding.part, holding.layout) == (part, layout)
    assert same_bits(holding.tensors, file)


def test_the_suffix_of_a_file_does_not_matter(tmp_path):
    spec = small_spec(tmp_path)
    save_file(official(spec, "denoiser", "official"), tmp_path / "safe.pt")
    torch.save({"ema": official(spec, "denoiser", "official")}, tmp_path / "pickle.safetensors")
    assert layouts(tmp_path / "safe.pt") == layouts(tmp_path / "pickle.safetensors") == {"denoiser": "official"}


@pytest.mark.parametrize(("container", "prefix"), [("ema", ""), ("model", "module."), ("state_dict", "_orig_mod.")])
def test_containers_and_wrappers_are_looked_through(container, prefix, tmp_path):
    file = official(small_spec(tmp_path), "denoiser", "official")
    torch.save({container: {prefix + key: tensor for key, tensor in file.items()}, "step": 1}, tmp_path / "base.pt")
    contents = read(tmp_path / "base.pt")
    (holding,) = contents.holdings
    assert (holding.container, holding.prefix) == (container, prefix)
    assert same_bits(holding.tensors, file)
    assert contents.left_over == {"step": "no tensor (int)"}


def test_a_single_file_is_taken_apart_and_its_tables_are_left_over(tmp_path):
    file = single_file(small_spec(tmp_path, IMAGE))
    save_file({key: tensor.contiguous() for key, tensor in file.items()}, tmp_path / "sd.safetensors")
    contents = read(tmp_path / "sd.safetensors")
    assert {each.prefix: (each.part, each.layout) for each in contents.holdings} == LDM
    assert set(contents.left_over) == {key for key in file if not key.startswith(tuple(LDM))}
    assert "noise schedule" in contents.left_over["betas"]


def test_a_single_file_with_tensors_of_something_else_is_refused(tmp_path):
    file = single_file(small_spec(tmp_path, IMAGE)) | {"control_model.input_blocks.0.0.weight": torch.ones(2)}
    save_file({key: tensor.contiguous() for key, tensor in file.items()}, tmp_path / "sd.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensors that belong to no part, such as control_model\.input_blocks"):
        read(tmp_path / "sd.safetensors")


def test_a_folder_of_diffusers_has_a_configuration_for_each_part(tmp_path):
    folder = write_diffusers(tmp_path / "sd", small_spec(tmp_path, IMAGE))
    assert layouts(folder) == {"denoiser": "official", "autoencoder": "diffusers_old", "text_encoder": "transformers"}
    assert all(each.config for each in read(folder).holdings)
    assert layouts(folder / "vae") == {"autoencoder": "diffusers_old"}


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_network_in_pieces_is_put_together(suffix, tmp_path):
    file = official(small_spec(tmp_path), "denoiser", "official")
    names = [f"piece-{index}.{suffix}" for index in range(2)]
    for index, name in enumerate(names):
        piece = {key: tensor for number, (key, tensor) in enumerate(file.items()) if number % 2 == index}
        (torch.save if suffix == "bin" else save_file)(piece, tmp_path / name)
    places = {key: names[number % 2] for number, key in enumerate(file)}
    index_file = tmp_path / f"diffusion_pytorch_model.{suffix}.index.json"
    index_file.write_text(json.dumps({"weight_map": places}))
    (holding,) = read(tmp_path).holdings
    assert same_bits(holding.tensors, file)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "missing.safetensors", ""])
def test_an_index_cannot_name_files_elsewhere(name, tmp_path):
    folder = tmp_path / "unet"
    folder.mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsError, match="no file beside it"):
        read(folder)


def test_safetensors_are_preferred_to_pickles_and_full_precision_to_half(tmp_path):
    def file(seed: int) -> dict[str, torch.Tensor]:
        return official(small_spec(tmp_path), "autoencoder", "diffusers", seed)

    folder = tmp_path / "vae"
    folder.mkdir()
    save_file(file(2), folder / "diffusion_pytorch_model.fp16.safetensors")
    torch.save(file(1), folder / "diffusion_pytorch_model.bin")
    assert same_bits(read(folder).holdings[0].tensors, file(2))
    save_file(file(0), folder / "diffusion_pytorch_model.safetensors")
    assert same_bits(read(folder).holdings[0].tensors, file(0))


def test_our_own_folder_is_recognised_by_its_manifest_and_checked(tmp_path):
    spec = small_spec(tmp_path)
    stage = spec.build()
    save_stage({"denoiser": stage.denoiser, "autoencoder": stage.autoencoder}, spec, tmp_path / "own")
    assert layouts(tmp_path / "own") == {"denoiser": OWN, "autoencoder": OWN}
    assert same_bits(read(tmp_path / "own").holdings[0].tensors, stage.denoiser.state_dict())
    path = tmp_path / "own" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="sha256"):
        read(tmp_path / "own")


def test_what_is_no_network_is_refused_with_what_could_be_read(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        read(tmp_path / "nothing")
    with pytest.raises(WeightsError, match=r"Readable: a folder of lavie, .*\.safetensors"):
        read(tmp_path)
    save_file({"a.lora_down.weight": torch.ones(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError, match=r"no network that lavie knows; its first tensor is a\.lora_down\.weight"):
        read(tmp_path / "lora.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "lora.safetensors").read_bytes()[:-2])
    with pytest.raises(WeightsError, match=r"cut\.safetensors is no safetensors file"):
        read(tmp_path / "cut.safetensors")
    save_file({"a\nb": torch.ones(1)}, tmp_path / "name.safetensors")
    with pytest.raises(WeightsError, match=r"a tensor named 'a\\nb'"):
        read(tmp_path / "name.safetensors")


def test_a_pointer_in_place_of_a_file_is_told(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(WeightsError, match=r"model\.safetensors is a pointer of Git LFS, not the file itself"):
        read(path)
