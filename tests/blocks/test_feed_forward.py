"""The gated feed-forward layer."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from lavie.blocks.base import Conditioning
from lavie.blocks.device import standing_for
from lavie.blocks.feed_forward import TOKENS_AT_ONCE, FeedForward

COND = Conditioning(torch.zeros(2, 1, 4))


@torch.no_grad()
def test_it_is_value_times_exact_gelu_of_gate():
    layer, x = FeedForward(4), torch.randn(2, 4, 3, 2, 2)
    token = x[1, :, 2, 0, 1]
    value, gate = F.linear(token, layer.expand.weight, layer.expand.bias).chunk(2)
    hidden = value * gate * (1 + torch.erf(gate / 2**0.5)) / 2
    expected = F.linear(hidden, layer.contract.weight, layer.contract.bias)
    torch.testing.assert_close(layer(x, COND)[1, :, 2, 0, 1], expected)


@torch.no_grad()
def test_positions_are_independent():
    layer, x = FeedForward(4), torch.randn(2, 4, 3, 2, 2)
    changed = x.clone()
    changed[0, :, 1, 1, 0] += 1.0
    differs = (layer(changed, COND) - layer(x, COND)).abs().amax(dim=1) > 1e-6
    assert differs.nonzero().tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("at_once", [1, 7, 24, 100])
def test_pieces_give_what_the_whole_gives(monkeypatch, at_once):
    layer, x = FeedForward(4), torch.randn(2, 4, 3, 2, 2).contiguous(memory_format=torch.channels_last_3d)
    whole = layer(x, COND)
    assert whole.requires_grad
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", at_once)
    sizes: list[int] = []
    layer.expand.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    with torch.no_grad():
        pieces = layer(x, COND)
    torch.testing.assert_close(pieces, whole.detach())
    assert pieces.stride() == whole.stride()
    assert sum(sizes) == 24
    assert max(sizes) <= at_once


@torch.no_grad()
def test_without_numbers_pieces_are_those_of_the_device_that_is_stood_for():
    with torch.device("meta"):
        layer, x = FeedForward(4), torch.randn(2, 4, 2, 16, TOKENS_AT_ONCE["cpu"] // 32)
    sizes: list[int] = []
    layer.expand.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    for device in ("cpu", "cuda"):
        with standing_for(device):
            layer(x, COND)
    assert sizes == [TOKENS_AT_ONCE["cpu"]] * 2 + [2 * TOKENS_AT_ONCE["cpu"]]
