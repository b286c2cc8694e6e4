"""Modules that several models share are stored once."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lavie.errors import WeightsError
from lavie.samplers.ddim import DDIMSpec
from lavie.spec import Spec
from lavie.weights.files import AVERAGE_FILE, MANIFEST, WEIGHTS_FILE, write_folder
from lavie.weights.loading import load_into
from lavie.weights.source import read_source
from lavie.weights.stored import read_tensors, save_stage


def linear(fill: float) -> nn.Linear:
    made = nn.Linear(64, 64)
    nn.init.constant_(made.weight, fill)
    nn.init.constant_(made.bias, fill)
    return made


@pytest.fixture
def spec() -> Spec:
    return DDIMSpec()


@pytest.fixture
def folder(tmp_path: Path, spec: Spec) -> Path:
    """Holds a model of two modules, and another that shares one of them."""
    save_stage({"denoiser": linear(1), "autoencoder": linear(2)}, spec, tmp_path / "first")
    shared = {"autoencoder": "first"}
    save_stage({"denoiser": linear(3), "autoencoder": linear(2)}, spec, tmp_path / "second", shared=shared)
    return tmp_path


def values(tensors: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(tensor.mean()) for name, tensor in tensors.items() if name.endswith("weight")}


def test_what_is_shared_is_read_from_the_other_folder(folder: Path) -> None:
    assert values(read_tensors(folder / "second")) == {"denoiser.weight": 3, "autoencoder.weight": 2}
    modules = {"denoiser": linear(0), "autoencoder": linear(0)}
    load_into(modules, folder / "second")
    loaded = {f"{name}.weight": module.weight.detach() for name, module in modules.items()}
    assert values(loaded) == {"denoiser.weight": 3, "autoencoder.weight": 2}


def test_what_is_shared_is_found_from_inside_the_folder_and_through_a_link(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(folder / "second")
    monkeypatch.chdir(folder / "second")
    for path in (link, Path()):
        assert values(read_tensors(path)) == {"denoiser.weight": 3, "autoencoder.weight": 2}


def test_what_is_shared_is_stored_once(folder: Path) -> None:
    first, second = ((folder / name / "model.safetensors").stat().st_size for name in ("first", "second"))
    assert second < 0.6 * first


def test_a_folder_that_shares_can_be_converted(folder: Path) -> None:
    assert {each.part for each in read_source(folder / "second", ExitStack()).holdings} == {"denoiser", "autoencoder"}


def test_other_weights_are_not_shared(folder: Path, spec: Spec) -> None:
    with pytest.raises(WeightsError, match=r"first has other weights for autoencoder: autoencoder\.weight differs"):
        save_stage({"autoencoder": linear(4)}, spec, folder / "third", shared={"autoencoder": "first"})
    assert not (folder / "third").exists()


def test_a_shared_file_that_changed_is_refused(folder: Path) -> None:
    path = folder / "first" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="sha256"):
        load_into({"denoiser": linear(0), "autoencoder": linear(0)}, folder / "second")


@pytest.mark.parametrize("name", ["../first", "", "..", "a/b"])
def test_only_folders_beside_are_shared(folder: Path, name: str) -> None:
    path = folder / "second" / MANIFEST
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"shared": {"autoencoder": {"folder": name, "sha256": ""}}})
    )
    with pytest.raises(WeightsError, match="shared must name folders beside this one"):
        read_tensors(folder / "second")


def test_a_shared_folder_that_is_gone_is_named(folder: Path) -> None:
    (folder / "first").rename(folder / "elsewhere")
    with pytest.raises(WeightsError, match=r"first has no manifest\.json"):
        read_tensors(folder / "second")


def test_a_shared_folder_with_other_weights_now_is_refused(folder: Path, spec: Spec) -> None:
    save_stage({"denoiser": linear(1), "autoencoder": linear(7)}, spec, folder / "first", overwrite=True)
    with pytest.raises(WeightsError, match=r"second shares its autoencoder with .*first, which has other weights now"):
        read_tensors(folder / "second")


def test_averages_count_before_what_is_averaged(tmp_path: Path) -> None:
    tensors = {"denoiser.weight": torch.zeros(2), "autoencoder.weight": torch.ones(2)}
    average = {"denoiser.weight": torch.full((2,), 5.0)}
    write_folder(tmp_path / "step", {WEIGHTS_FILE: tensors, AVERAGE_FILE: average}, {})
    assert values(read_tensors(tmp_path / "step")) == {"denoiser.weight": 5, "autoencoder.weight": 1}
