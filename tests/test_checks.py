"""`check_component` catches what breaks a contract, and says so in words."""

from collections.abc import Callable
from typing import Annotated, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, Position, PositionSpec, Site, TemporalLayer, TemporalSpec
from lavie.samplers.schedule import RectifiedFlow, Schedule, ScheduleSpec
from lavie.spec import Spec
from lavie.testing import check_component


class Silent(TemporalLayer):
    """A good layer: a depthwise convolution that starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (3, 1, 1), padding="same", groups=channels)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(x)


class Loud(Silent):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        nn.init.ones_(self.conv.bias)  # type: ignore[arg-type]


class MixesBatch(Silent):
    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(x - x.mean(dim=0))


class HasIdleParameter(Silent):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.idle = nn.Parameter(torch.zeros(3))


class DropsFrames(Silent):
    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(x)[:, :, :4]


class Doubles(Silent):
    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(x).double()


class Dithers(Silent):
    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(x) * (1 + 1e-3 * torch.randn(()))


class WritesToInput(Silent):
    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(x.mul_(2))


class TrustsMemoryOrder(Silent):
    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(torch.as_strided(x, x.shape, torch.empty(x.shape).stride()))


class WidensBfloat16(Silent):
    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        out = self.conv(x)
        return out.float() if out.dtype == torch.bfloat16 else out


class TakesMemory(Silent):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.table = nn.Parameter(torch.zeros(3, device="cpu"))


def temporal(layer: Callable[[int], object]) -> Spec:
    class LayerSpec(TemporalSpec):
        type: Literal["tested"] = "tested"

        def build(self, site: Site) -> TemporalLayer | None:
            return layer(site.channels)  # type: ignore[return-value]

    return LayerSpec()


def test_a_good_layer_passes() -> None:
    check_component(temporal(Silent))


@pytest.mark.parametrize(
    ("layer", "promise"),
    [
        (Loud, "is not silent when fresh: it adds up to 1.0e"),
        (MixesBatch, "mixes samples of a batch"),
        (HasIdleParameter, "has parameters without a gradient: idle"),
        (DropsFrames, r"returns shape \(2, 64, 4, 8, 8\) where \(2, 64, 9, 8, 8\) is due"),
        (Doubles, "returns torch.float64 where torch.float32 is due"),
        (Dithers, "is not deterministic in eval"),
        (WritesToInput, "writes to its input"),
        (TrustsMemoryOrder, "depends on the memory order of its input"),
        (WidensBfloat16, "returns torch.float32 for bfloat16 input"),
        (TakesMemory, "does not build on the meta device: table takes memory there"),
        (nn.Identity, "builds Identity, which is no TemporalLayer"),
    ],
)
def test_a_layer_that_breaks_its_contract_is_told_how(layer: Callable[[int], object], promise: str) -> None:
    with pytest.raises(AssertionError, match=f"temporal 'tested' {promise}"):
        check_component(temporal(layer))


def test_a_component_must_not_take_a_name_of_lavie() -> None:
    class MineSpec(TemporalSpec):
        type: Literal["attention"] = "attention"

        def build(self, site: Site) -> None:
            return None

    with pytest.raises(AssertionError, match="is lavie's own name"):
        check_component(MineSpec())


def test_a_component_must_survive_a_round_trip() -> None:
    class ForgetfulSpec(TemporalSpec):
        type: Literal["forgetful"] = "forgetful"
        size: Annotated[int, Field(ge=1, exclude=True)] = 1

        def build(self, site: Site) -> None:
            return None

    with pytest.raises(AssertionError, match="'forgetful' does not load back from its own dump"):
        check_component(ForgetfulSpec(size=2))


def test_a_position_must_keep_the_dtype() -> None:
    class Wide(Position):
        def forward(self, x: Tensor) -> Tensor:
            return x.double()

    class WideSpec(PositionSpec):
        type: Literal["wide"] = "wide"

        def build(self, site: Site) -> Position:
            return Wide()

    with pytest.raises(AssertionError, match=r"position 'wide' returns torch\.float64"):
        check_component(WideSpec())


def test_a_schedule_must_lead_there_and_back() -> None:
    class Wrong(RectifiedFlow):  # type: ignore[misc]
        def timestep(self, sigma: float) -> float:
            return 3.0

    class WrongSpec(ScheduleSpec):
        type: Literal["wrong"] = "wrong"

        def build(self) -> Schedule:
            return Wrong(1000, 1.0)

    with pytest.raises(AssertionError, match=r"schedule 'wrong' leads from sigma .* and not back"):
        check_component(WrongSpec())
