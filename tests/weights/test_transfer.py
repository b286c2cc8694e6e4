"""Starting from a network that is nearly the same."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lavie.errors import WeightsError
from lavie.weights.files import WEIGHTS_FILE, prefixed, write_folder
from lavie.weights.transfer import transfer


def network(in_channels: int = 4, hidden: int = 6, *, extra: bool = False) -> nn.Module:
    layers: dict[str, nn.Module] = {"conv_in": nn.Conv2d(in_channels, hidden, 3), "norm": nn.BatchNorm2d(hidden)}
    return nn.ModuleDict({**layers, "last": nn.Linear(hidden, 2)} if extra else layers)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    old = network()
    write_folder(tmp_path / "old", {WEIGHTS_FILE: prefixed({"denoiser": old, "autoencoder": nn.Linear(2, 2)})}, {})
    return tmp_path / "old", old


def test_the_same_network_is_taken_whole(saved: tuple[Path, nn.Module]) -> None:
    folder, old = saved
    new = network()
    done = transfer({"denoiser": new}, folder)
    assert (done.fresh, done.unused, done.widened) == ((), (), ())
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


def test_further_inputs_start_with_no_effect(saved: tuple[Path, nn.Module]) -> None:
    folder, old = saved
    new = network(in_channels=7)
    assert transfer({"denoiser": new}, folder).widened == ("denoiser.conv_in.weight",)
    x, more = torch.randn(2, 4, 5, 5), torch.randn(2, 3, 5, 5)
    assert torch.equal(new["conv_in"](torch.cat((x, more), 1)), new["conv_in"](torch.cat((x, 0 * more), 1)))  # type: ignore[index]
    torch.testing.assert_close(new["conv_in"](torch.cat((x, more), 1)), old["conv_in"](x))  # type: ignore[index]


def test_what_is_new_and_what_has_no_place_is_named(saved: tuple[Path, nn.Module]) -> None:
    folder, _ = saved
    new = network(extra=True)
    before = new["last"].weight.clone()  # type: ignore[index]
    assert transfer({"denoiser": new}, folder).fresh == ("denoiser.last.weight", "denoiser.last.bias")
    assert torch.equal(new["last"].weight, before)  # type: ignore[index]
    smaller = nn.ModuleDict({"conv_in": nn.Conv2d(4, 6, 3)})
    assert "denoiser.norm.weight" in transfer({"denoiser": smaller}, folder).unused


def test_another_network_is_refused_and_nothing_is_changed(saved: tuple[Path, nn.Module]) -> None:
    folder, _ = saved
    other = network(hidden=8)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(WeightsError, match=r"only 1 of 7 tensors fit the model; it is another network"):
        transfer({"denoiser": other}, folder)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
