import pytest
import torch
from torch import nn

from lavie.training.ema import Average, decay_at


def test_the_decay_is_small_at_first_and_never_above_its_limit() -> None:
    decays = [decay_at(0.99, step) for step in range(2000)]
    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_the_average_follows_the_recurrence() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = Average({"layer": layer}, 0.9)
    expected = 0.0
    for step in range(50):
        nn.init.constant_(layer.weight, float(step))
        average.update(step)
        expected += (1 - decay_at(0.9, step)) * (step - expected)
    assert float(average.modules["layer"].state_dict()["weight"]) == pytest.approx(expected, rel=1e-5)


def test_averages_of_constant_weights_are_those_weights() -> None:
    layer = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    average = Average({"layer": layer}, 0.5)
    for step in range(5):
        average.update(step)
    for name, value in average.modules["layer"].state_dict().items():
        assert torch.allclose(value, layer.state_dict()[name], atol=1e-6)


def test_averages_need_no_gradient_and_are_apart_from_the_weights() -> None:
    layer = nn.Linear(2, 2)
    average = Average({"layer": layer}, 0.5)
    nn.init.zeros_(layer.weight)
    assert not any(parameter.requires_grad for parameter in average.modules["layer"].parameters())
    assert not average.modules["layer"].training
    assert float(average.modules["layer"].state_dict()["weight"].abs().sum()) > 0


def test_counting_buffers_are_copied() -> None:
    norm = nn.BatchNorm1d(2)
    average = Average({"norm": norm}, 0.5)
    norm(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    average.update(0)
    assert int(average.modules["norm"].state_dict()["num_batches_tracked"]) == 1
