"""Weights of stages and cascades: one folder per stage, each for its own network."""

from pathlib import Path

import pytest
import torch
from small_model import small_spec, small_weights
from small_parts import BASE, part_of, save_cascade, small_cascade, small_cascade_spec, small_part_spec

from lavie.errors import WeightsError
from lavie.specfile import load_spec
from lavie.stages import Cascade, LatentDiffusion, load_stage, shipped_weights
from lavie.stages.loading import weights_in
from lavie.weights.files import prefixed


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return small_cascade()


@pytest.fixture(scope="module")
def weights(cascade: Cascade, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cascade(cascade, tmp_path_factory.mktemp("weights"))


def same(one: LatentDiffusion, other: LatentDiffusion) -> bool:
    found, due = prefixed(one.networks()), prefixed(other.networks())
    return found.keys() == due.keys() and all(torch.equal(found[name], due[name]) for name in due)


def test_a_cascade_has_a_folder_of_weights_for_each_stage(cascade: Cascade, weights: Path) -> None:
    assert sorted(path.name for path in weights.iterdir()) == ["base", "interpolation", "upscaling"]
    loaded = load_stage(small_cascade_spec(), weights)
    assert isinstance(loaded, Cascade)
    assert not loaded.training
    for name in cascade.parts():
        assert same(part_of(loaded, name), part_of(cascade, name))


def test_a_dropped_stage_needs_no_weights(cascade: Cascade, weights: Path) -> None:
    folders = {name: weights / name for name in ("base", "upscaling")}
    spec = small_cascade_spec("interpolation=null")
    assert weights_in(weights, spec) == folders
    loaded = load_stage(spec, folders)
    assert isinstance(loaded, Cascade)
    assert same(part_of(loaded, "upscaling"), part_of(cascade, "upscaling"))


def test_stages_may_come_from_different_places(weights: Path, tmp_path: Path) -> None:
    other = save_cascade(small_cascade("interpolation=null", "upscaling=null"), tmp_path)
    loaded = load_stage(small_cascade_spec(), {**weights_in(weights, small_cascade_spec()), "base": other / "base"})
    assert isinstance(loaded, Cascade)


def test_stages_without_weights_stay_as_they_were_drawn(cascade: Cascade, weights: Path) -> None:
    loaded = load_stage(small_cascade_spec(), {"base": weights / "base"})
    assert isinstance(loaded, Cascade)
    assert same(part_of(loaded, "base"), part_of(cascade, "base"))
    assert not same(part_of(loaded, "interpolation"), part_of(cascade, "interpolation"))


def test_weights_for_a_stage_that_is_not_there_are_refused(weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"'interpolaton': .* Did you mean 'interpolation'\? Stages: 'base', 'inter"):
        load_stage(small_cascade_spec(), {"interpolaton": weights / "interpolation"})
    with pytest.raises(WeightsError, match="weights for 'upscaling': the spec has no such stage"):
        load_stage(small_cascade_spec("upscaling=null"), {"upscaling": weights / "upscaling"})
    with pytest.raises(WeightsError, match="weights for 'base': the spec has no such stage"):
        load_stage(small_part_spec(BASE), {"base": weights / "base"})


def test_a_missing_folder_and_one_of_another_stage_are_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"base has no manifest\.json"):
        load_stage(small_cascade_spec(), tmp_path)
    swapped = {"base": weights / "interpolation"}
    with pytest.raises(WeightsError, match=r"interpolation does not fit the network:\ndenoiser"):
        load_stage(small_cascade_spec(), swapped)


def test_a_single_stage_has_one_folder_or_file(tmp_path: Path) -> None:
    folder, spec = small_weights(tmp_path), small_spec(tmp_path)
    assert weights_in(folder, spec) == weights_in(folder / "model.safetensors", spec) == {"": folder}
    one, other = load_stage(spec, folder), load_stage(spec, {"": folder})
    assert isinstance(one, LatentDiffusion)
    assert isinstance(other, LatentDiffusion)
    assert same(one, other)


def test_shipped_weights_are_found_by_name_and_in_cascades_by_their_tensors() -> None:
    base = load_spec("base-tiny")
    (folder,) = shipped_weights(base, "base-tiny").values()
    assert folder.name == "base-tiny"
    assert shipped_weights(base, "mine") == {"": folder}
    assert shipped_weights(load_spec("cascade-tiny"))["base"] == folder
    assert shipped_weights(load_spec("base"), "base") == {}


@pytest.mark.parametrize("name", ["interpolation-tiny", "first-frame-tiny"])
def test_of_shipped_weights_with_the_same_tensors_those_of_the_most_similar_spec_are_taken(name: str) -> None:
    (folder,) = shipped_weights(load_spec(name, overrides=["sampler.num_inference_steps=3"]), "mine").values()
    assert folder.name == name


def test_the_embedded_cascade_runs_with_the_weights_of_its_own_stages() -> None:
    found = shipped_weights(load_spec("cascade-tiny"))
    assert found.keys() >= {"base", "interpolation"}
    assert {part: folder.name for part, folder in found.items()} == {part: f"{part}-tiny" for part in found}
