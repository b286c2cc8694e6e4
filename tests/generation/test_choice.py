"""What is to run is settled, or refused by name, before anything is built."""

from pathlib import Path

import pytest
import torch
from small_model import small_registry, small_spec, small_weights

from lavie.errors import LavieError, SpecError, WeightsError
from lavie.generation.choice import check_seed, choose_model, choose_spec
from lavie.generation.model import Model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds small.yaml and its weights."""
    folder = tmp_path_factory.mktemp("small")
    small_weights(folder)
    return folder


def choose(folder: Path, **options: object) -> Model:
    weights = options.pop("weights", folder / "weights")
    return choose_model(weights=weights, device=options.pop("device", "cpu"), registry=small_registry(), **options)  # type: ignore[arg-type]


def test_weights_bring_their_own_spec(folder: Path) -> None:
    model = choose(folder)
    assert model.spec == small_spec(folder)
    assert model.name == "weights"
    assert len(model.weights_sha256) == 64


def test_a_spec_goes_by_path_or_as_an_object_with_overrides(folder: Path) -> None:
    by_path = choose(folder, spec=folder / "small.yaml", overrides=["video.num_frames=5"])
    as_object = choose(folder, spec=small_spec(folder), overrides=["video.num_frames=5"])
    assert by_path.spec == as_object.spec
    assert by_path.shape().num_frames == 5
    assert by_path.trained_shape().num_frames == 3
    assert by_path.name == "small"


def test_the_weights_file_itself_stands_for_its_folder(folder: Path) -> None:
    model = choose(folder, weights=folder / "weights" / "model.safetensors")
    assert model.weights == {"": folder / "weights"}


def test_without_a_spec_it_is_the_shipped_one() -> None:
    assert choose_spec(None, registry=small_registry()) == choose_spec("base-tiny", registry=small_registry())


@pytest.mark.parametrize(("has_frames", "name"), [(False, "base-tiny"), (True, "first-frame-tiny")])
def test_without_a_spec_frames_go_to_a_model_that_takes_them(has_frames: bool, name: str) -> None:
    assert choose_model(has_frames=has_frames, device="cpu").name == name


def test_frames_do_not_change_the_model_that_is_asked_for(folder: Path) -> None:
    assert choose(folder, has_frames=True).name == "weights"
    assert choose_model("base-tiny", has_frames=True, device="cpu").name == "base-tiny"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": ["video.height=33"]}, r"video\.height: 33 is no multiple of the autoencoder's factor 2"),
        ({"overrides": ["video.num_frames=0"]}, r"video\.num_frames: must be greater than or equal to 1"),
        ({"overrides": ["guidance.scale=.nan"]}, r"\.nan is not a finite number"),
        ({"overrides": ["sampler=none"]}, "unknown sampler 'none'"),
        ({"overrides": ["video={num_frames: 4096, height: 16384, width: 16384}"]}, "GiB for latents and a few frames"),
        ({"spec": "no-such"}, "spec 'no-such': no such file"),
        ({"device": "cuda:banana"}, "device: unknown device 'cuda:banana'"),
        ({"device": "cuda:99"}, "device: cuda:99 is not available: torch .* sees [0-9]+ CUDA devices here. Use cpu"),
        ({"device": "meta"}, "device: meta is not supported"),
        ({"dtype": "float8"}, "dtype: unknown dtype 'float8'. Known: float32, bfloat16, float16"),
    ],
)
def test_bad_choices_are_refused_with_their_place(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        choose(folder, **options)


def test_weights_that_are_not_there_or_not_made_are_named(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"none has no manifest\.json"):
        choose(folder, weights=folder / "none")
    with pytest.raises(WeightsError, match=r"the spec 'small' comes without weights; .* --weights"):
        choose(folder, spec=folder / "small.yaml", weights=None)


def test_weights_of_another_network_are_refused_when_loaded(folder: Path) -> None:
    with pytest.raises(LavieError, match="does not fit the network"):
        choose(folder, overrides=["denoiser.channels=[12]"]).load()


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70, True, 1.0, "1", None])
def test_seeds_outside_their_range_are_refused(seed: object) -> None:
    with pytest.raises(SpecError, match=r"seed: must be a whole number in \[0, 2\^63\)"):
        check_seed(seed)
    assert check_seed(2**63 - 1) == 2**63 - 1


def test_auto_takes_cuda_where_there_is_one(folder: Path) -> None:
    assert choose(folder, device="auto").device == ("cuda" if torch.cuda.is_available() else "cpu")
