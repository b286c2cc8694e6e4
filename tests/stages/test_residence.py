"""Networks that come and go: the same videos, and nothing in memory that is not at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_cascade import cascade_weights, small_cascade
from torch import nn

from lavie.samplers.base import Step
from lavie.stages import LatentDiffusion, Request, Stage, load_stage
from lavie.stages.loading import twin_networks
from lavie.stages.residence import InTurn

REQUESTS = [Request("a red circle", seed=5), Request("a blue star", seed=6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    cascade_weights(folder)
    return folder


def loaded(stage: Stage) -> set[tuple[str, str]]:
    """Return which networks have weights in memory, by part and name."""
    return {
        (name, kind)
        for name, part in stage.parts().items()
        if isinstance(part, LatentDiffusion)
        for kind, network in part.networks().items()
        if not next(network.parameters()).is_meta
    }


def test_videos_are_the_same_bit_for_bit(folder: Path) -> None:
    spec = small_cascade(folder)
    always, in_turn = (load_stage(spec, folder / "weights", in_turn=each) for each in (False, True))
    for requests in (REQUESTS, REQUESTS[:1]):
        assert torch.equal(always.generate(requests).video(), in_turn.generate(requests).video())


def test_only_the_denoiser_at_work_is_in_memory(folder: Path) -> None:
    stage = load_stage(small_cascade(folder), folder / "weights", in_turn=True)
    autoencoders = {(name, "autoencoder") for name in ("base", "interpolation", "upscaling")}
    assert loaded(stage) == autoencoders
    seen: list[set[tuple[str, str]]] = []

    def on_step(name: str, step: Step) -> None:
        seen.append(loaded(stage) - autoencoders)

    stage.generate(REQUESTS[:1], on_step)
    assert seen == [{(name, "denoiser")} for name in ("base", "interpolation", "upscaling") for _ in range(2)]
    assert loaded(stage) == autoencoders


def test_equal_networks_are_in_memory_once(folder: Path, tmp_path: Path) -> None:
    spec = small_cascade(folder)
    stage = load_stage(spec, folder / "weights")
    base, between, larger = (part for part in stage.parts().values() if isinstance(part, LatentDiffusion))
    assert base.autoencoder is between.autoencoder
    assert base.text_encoder is between.text_encoder
    assert base.text_encoder is not larger.text_encoder
    assert base.denoiser is not between.denoiser
    other_setting = small_cascade(tmp_path, "interpolation.autoencoder.decode_chunk=2")
    stage = load_stage(other_setting, folder / "weights")
    base, between, _ = (part for part in stage.parts().values() if isinstance(part, LatentDiffusion))
    assert (base.autoencoder.decode_chunk, between.autoencoder.decode_chunk) == (1, 2)


def test_without_weights_networks_of_one_spec_count_as_equal(folder: Path) -> None:
    assert twin_networks(small_cascade(folder)) == {
        ("interpolation", "autoencoder"): ("base", "autoencoder"),
        ("interpolation", "text_encoder"): ("base", "text_encoder"),
        ("upscaling", "autoencoder"): ("base", "autoencoder"),
        ("upscaling", "text_encoder"): ("base", "text_encoder"),
    }


def test_a_network_is_released_once_nobody_uses_it() -> None:
    network, residence, loads = nn.Linear(2, 2, device="meta"), InTurn(), []

    def load() -> None:
        loads.append(network.to_empty(device="cpu"))

    residence.add(network, load)
    with residence.holding(network):
        with residence.holding(network):
            pass
        assert not network.weight.is_meta
    assert network.weight.is_meta
    assert len(loads) == 1


def test_a_network_whose_loading_fails_is_not_left_half_there() -> None:
    network, residence = nn.Linear(2, 2, device="meta"), InTurn()

    def load() -> None:
        network.to_empty(device="cpu")
        raise MemoryError

    residence.add(network, load)
    with pytest.raises(MemoryError), residence.holding(network):
        pass
    assert network.weight.is_meta


def test_networks_that_compute_tensors_when_built_stay_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def remembering() -> Iterator[None]:
        old = nn.Linear.__init__

        def init(self: nn.Linear, *args: object, **kwargs: object) -> None:
            old(self, *args, **kwargs)  # type: ignore[arg-type]
            self.scale = torch.ones(())

        with monkeypatch.context() as patch:
            patch.setattr(nn.Linear, "__init__", init)
            yield

    spec = small_cascade(folder)
    with remembering():
        stage = load_stage(spec, folder / "weights", in_turn=True)
    assert {kind for _, kind in loaded(stage)} == {"denoiser", "autoencoder", "text_encoder"}
    whole = load_stage(spec, folder / "weights")
    assert torch.equal(stage.generate(REQUESTS[:1]).video(), whole.generate(REQUESTS[:1]).video())
