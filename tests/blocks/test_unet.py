"""The UNet: where its spec puts what, and in which order memory lies."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lavie.blocks.base import Conditioning, TemporalLayer
from lavie.blocks.bias import RelativeBiasSpec
from lavie.blocks.conditioning import ConcatSpec, FrameIndexSpec
from lavie.blocks.position import RotarySpec
from lavie.blocks.spatial import SpatialAttention, SpatialAttentionSpec, TextAttention, TextAttentionSpec
from lavie.blocks.temporal import NoTemporalSpec, TemporalAttention, TemporalAttentionSpec
from lavie.blocks.temporal_conv import SpatioTemporalBlock, SpatioTemporalBlockSpec, TemporalConvBlockSpec
from lavie.blocks.transformer import TransformerSpec
from lavie.blocks.unet import DownLevel, NormSpec, UNet3D, UNetSpec
from lavie.spec import PerLevel

TEMPORAL = TemporalAttentionSpec(position=RotarySpec(dim=8), bias=RelativeBiasSpec(num_buckets=8, max_distance=8))


def spec(**changes: Any) -> UNetSpec:
    parts: dict[str, Any] = {
        "channels": (16, 32),
        "attention": PerLevel[bool](levels=(True, False), mid=True),
        "num_res_blocks": 1,
        "context_dim": 6,
        "norm": NormSpec(groups=4),
        "transformer": TransformerSpec(num_heads=PerLevel(everywhere=2), temporal=PerLevel(everywhere=TEMPORAL)),
    }
    return UNetSpec(**{**parts, **changes})


def awake(spec: UNetSpec) -> UNet3D:
    """Build a network as training would leave it: nothing in it is zero."""
    torch.manual_seed(0)
    network = spec.build().eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return network


def run(network: UNet3D, noisy: Tensor, **inputs: Tensor) -> Tensor:
    context = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3))[: len(noisy)]
    with torch.inference_mode():
        return network(noisy, torch.arange(len(noisy)) * 100, Conditioning(context, inputs=inputs))


def latent(batch: int = 2, num_frames: int = 3, height: int = 4, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, num_frames, height, width, generator=generator)[:batch]


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
@pytest.mark.parametrize("num_frames", [1, 4])
def test_the_prediction_has_the_size_of_the_latent(size, num_frames):
    network = awake(spec(channels=(16, 16, 16), attention=PerLevel[bool](everywhere=True)))
    noisy = latent(2, num_frames, *size)
    assert run(network, noisy).shape == noisy.shape


def test_videos_of_a_batch_are_independent():
    network, noisy = awake(spec()), latent()
    torch.testing.assert_close(run(network, noisy)[:1], run(network, noisy[:1]), atol=1e-5, rtol=0)


def test_fresh_temporal_layers_change_nothing():
    torch.manual_seed(0)
    network = spec(after_level=PerLevel(everywhere=SpatioTemporalBlockSpec(norm_groups=4))).build().eval()
    silent = spec(
        transformer=TransformerSpec(num_heads=PerLevel(everywhere=2), temporal=PerLevel(everywhere=NoTemporalSpec()))
    )
    plain = silent.build().eval()
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if key in plain.state_dict()})
    assert torch.equal(run(network, latent()), run(plain, latent()))


def test_each_choice_reaches_its_level():
    network = spec(
        attention=PerLevel[bool](levels=(True, True), mid=True),
        num_res_blocks=2,
        transformer=TransformerSpec(
            num_heads=PerLevel(levels=(2, 4), mid=8),
            spatial=PerLevel(levels=(TextAttentionSpec(), SpatialAttentionSpec()), mid=TextAttentionSpec()),
            temporal=PerLevel(levels=(NoTemporalSpec(), TemporalAttentionSpec()), mid=NoTemporalSpec()),
        ),
        after_level=PerLevel(levels=(SpatioTemporalBlockSpec(norm_groups=4), NoTemporalSpec())),
    ).build()
    fine = [*network.down[0].layers, *network.up[1].layers]
    coarse = [*network.down[1].layers, *network.up[0].layers]
    for layers, heads, spatial in ((fine, 2, TextAttention), (coarse, 4, SpatialAttention)):
        assert len(layers) == 2 + 3
        for layer in layers:
            assert type(layer.transformer.sublayers["spatial"].layer) is spatial
            assert layer.transformer.sublayers["spatial"].layer.attention.num_heads == heads
            assert ("temporal" in layer.transformer.sublayers) == (layers is coarse)
    assert network.mid.layer.transformer.sublayers["spatial"].layer.attention.num_heads == 8
    assert "temporal" not in network.mid.layer.transformer.sublayers
    assert [type(level.after) for level in (network.down[0], network.up[1])] == [SpatioTemporalBlock] * 2
    assert [level.after for level in (network.down[1], network.up[0], network.mid)] == [None] * 3
    assert isinstance(coarse[0].transformer.sublayers["temporal"].layer, TemporalAttention)


def test_levels_without_attention_have_no_transformer():
    network = spec().build()
    assert network.down[1].layers[0].transformer is None
    assert network.down[0].layers[0].transformer is not None
    assert network.mid.layer.transformer is not None


@pytest.mark.parametrize("path", ["attention", "after_level", "transformer.num_heads", "transformer.before"])
def test_values_for_another_number_of_levels_are_refused(path):
    wrong: dict[str, PerLevel[Any]] = {
        "attention": PerLevel[bool](levels=(True, True, False)),
        "after_level": PerLevel(levels=(NoTemporalSpec(),) * 3),
        "transformer.num_heads": PerLevel(levels=(2, 2, 2)),
        "transformer.before": PerLevel(levels=(NoTemporalSpec(),) * 3),
    }
    host, _, field = path.partition(".")
    value = TransformerSpec(**{field: wrong[path]}) if field else wrong[path]
    with pytest.raises(ValueError, match=rf"{path} has 3 values for 2 levels"):
        spec(**{host: value})


class AddOne(TemporalLayer):
    """Adds one."""

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return torch.ones_like(x)


def test_skips_are_taken_before_the_temporal_layer_of_a_level():
    level = spec().build().down[0]
    with_after = DownLevel([*level.layers], level.resample, AddOne())
    cond = Conditioning(torch.zeros(2, 5, 6), time_embed=torch.zeros(2, 1, 64))
    x = torch.randn(2, 16, 3, 4, 6)
    plain_skips: list[Tensor] = []
    skips: list[Tensor] = []
    with torch.inference_mode():
        plain, found = level(x, cond, plain_skips), with_after(x, cond, skips)
    assert torch.equal(found, plain + 1)
    assert [torch.equal(*pair) for pair in zip(skips, plain_skips, strict=True)] == [True, True]


def test_skips_come_back_in_reverse_order_after_what_flows():
    network = spec(channels=(16, 32, 48), attention=PerLevel[bool](everywhere=False), num_res_blocks=2).build()
    widths = [[layer.resblock.conv1.weight.shape[1] for layer in level.layers] for level in network.up]
    assert widths == [[48 + 48, 48 + 48, 48 + 32], [48 + 32, 32 + 32, 32 + 16], [32 + 16, 16 + 16, 16 + 16]]


def test_conditioners_act_in_their_order():
    network = awake(spec(conditioners=(ConcatSpec(name="frames", channels=3), FrameIndexSpec(dim=4))))
    assert network.conv_in.weight.shape[1] == 7
    still = latent(num_frames=1).expand(-1, -1, 3, -1, -1)
    out = run(network, still, frames=torch.zeros(2, 3, 3, 4, 6))
    assert not torch.allclose(out[:, :, 0], out[:, :, 1], atol=1e-4)


def copies(network: UNet3D, noisy: Tensor) -> Counter[str]:
    """Count the copies of activations by who asked for them, also inside of kernels."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        run(network, noisy)
    clones = [event for event in profiler.events() if event.name == "aten::clone"]
    return Counter(event.cpu_parent.name for event in clones if math.prod(event.input_shapes[0]) > 100)


NETWORKS: dict[str, Callable[[], UNetSpec]] = {
    "transformers": spec,
    "convolutions": lambda: spec(
        transformer=TransformerSpec(
            num_heads=PerLevel(everywhere=2),
            temporal=PerLevel(everywhere=TEMPORAL),
            before=PerLevel(everywhere=TemporalConvBlockSpec(norm_groups=4)),
            projection="linear",
        ),
        after_level=PerLevel(everywhere=SpatioTemporalBlockSpec(norm_groups=4)),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 2])
def test_only_the_regrouping_for_temporal_attention_copies(name, batch):
    network = awake(NETWORKS[name]())
    temporal = sum(isinstance(module, TemporalAttention) for module in network.modules())
    assert temporal == 4
    # One more puts the latent, which comes in any order, into that of the network.
    assert copies(network, latent(batch, 3, 8, 6)).total() == temporal + 1


@pytest.mark.parametrize("batch", [1, 2])
def test_the_prediction_keeps_the_memory_order(batch):
    assert run(awake(spec()), latent(batch)).is_contiguous(memory_format=torch.channels_last_3d)
