import pytest
import torch
from torch import nn

from lavie.blocks.base import Site
from lavie.blocks.position import NoPositionSpec
from lavie.blocks.temporal import TemporalAttentionSpec
from lavie.errors import SpecError, WeightsError
from lavie.training.optimizer import Optimizer, OptimizerSpec, learning_rate_factor, trainable

SPEC = OptimizerSpec(learning_rate=0.1, warmup_steps=10, final_fraction=0.2)


def network() -> dict[str, nn.Module]:
    temporal = TemporalAttentionSpec(position=NoPositionSpec()).build(Site(channels=8, num_heads=2, norm_groups=4))
    assert temporal is not None
    net = nn.Sequential(nn.Linear(3, 8), temporal)
    return {"net": net}


def test_the_learning_rate_rises_then_falls_to_its_last_fraction() -> None:
    rates = [learning_rate_factor(SPEC, step, 100) for step in range(100)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.2, abs=1e-3)
    assert rates[0] == pytest.approx(1 / 11)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate_factor(OptimizerSpec(warmup_steps=0), 0, 10) == 1.0


def test_frozen_patterns_leave_parameters_out() -> None:
    modules = network()
    names = trainable(modules, ["net.0.*"])
    assert names
    assert not any(name.startswith("net.0") for name in names)
    assert not next(modules["net"].parameters()).requires_grad


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'net\.9\.\*' matches no parameter; names look like net\.0\.weight"):
        trainable(network(), ["net.9.*"])


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(SpecError, match="leaves nothing to train"):
        trainable(network(), ["*"])


def test_temporal_layers_have_their_own_learning_rate_and_biases_no_decay() -> None:
    modules = network()
    parameters = trainable(modules, [])
    optimizer = Optimizer(OptimizerSpec(temporal_scale=3.0, weight_decay=0.5), modules, parameters)
    rate = optimizer.set_learning_rate(0, 100)
    by_parameter = {
        id(member): (group["lr"], group["weight_decay"])
        for group in optimizer.adamw.param_groups
        for member in group["params"]
    }
    for name, parameter in parameters.items():
        scale = 3.0 if name.startswith("net.1") else 1.0
        decay = 0.5 if parameter.ndim > 1 else 0.0
        assert by_parameter[id(parameter)] == (rate * scale, decay)


def test_the_state_survives_a_round_trip_bit_for_bit() -> None:
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    spare = nn.Linear(2, 2)
    modules: dict[str, nn.Module] = {"conv": conv, "spare": spare}
    first = Optimizer(SPEC, modules, trainable(modules, []))
    conv(torch.ones(1, 3, 4, 4)).square().sum().backward()
    first.adamw.step()
    second = Optimizer(SPEC, modules, trainable(modules, []))
    second.restore({name: value.contiguous() for name, value in first.state().items()})
    assert first.state().keys() == second.state().keys()
    assert not any(name.startswith("spare") for name in first.state())
    for name, value in first.state().items():
        assert torch.equal(value, second.state()[name])
        assert value.stride() == second.state()[name].stride()


def test_the_state_of_another_network_is_refused() -> None:
    modules = network()
    optimizer = Optimizer(SPEC, modules, trainable(modules, []))
    with pytest.raises(WeightsError, match=r"other\.weight\|exp_avg belongs to no trained parameter"):
        optimizer.restore({"other.weight|exp_avg": torch.zeros(3)})
    with pytest.raises(WeightsError, match=r"net\.0\.weight\|exp_avg"):
        optimizer.restore({"net.0.weight|exp_avg": torch.zeros(3)})


def test_gradients_are_scaled_down_to_the_allowed_norm() -> None:
    layer = nn.Linear(2, 1, bias=False)
    modules: dict[str, nn.Module] = {"layer": layer}
    optimizer = Optimizer(OptimizerSpec(gradient_clip=0.5), modules, trainable(modules, []))
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert float(optimizer.clip()) == pytest.approx(5.0)
    assert float(layer.weight.grad.norm()) == pytest.approx(0.5, abs=1e-5)
