"""Multi-head attention and its kernel boundary."""

import pytest
import torch

from lavie.blocks.attention import Attention, attend


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_kernel_equals_the_formula():
    query, key, value, bias = draw(3, 2, 5, 8), draw(3, 2, 7, 8), draw(3, 2, 7, 8), draw(2, 5, 7)
    weights = (query @ key.transpose(-1, -2) / 8**0.5 + bias).softmax(dim=-1)
    torch.testing.assert_close(attend(query, key, value, bias), weights @ value)
    strided = bias.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(attend(query, key, value, strided), attend(query, key, value, bias))


def test_a_learned_bias_gets_the_gradient_of_the_formula():
    gradients = []
    for formula in (False, True):
        query, key, value = draw(3, 2, 5, 8), draw(3, 2, 7, 8), draw(3, 2, 7, 8)
        bias = draw(2, 5, 7).requires_grad_()
        logits = query @ key.transpose(-1, -2) / 8**0.5 + bias
        out = logits.softmax(dim=-1) @ value if formula else attend(query, key, value, bias)
        out.square().sum().backward()
        gradients.append(bias.grad)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_the_order_of_the_context_does_not_matter():
    attention = Attention(16, num_heads=2, context_dim=6)
    x, context = draw(2, 5, 16), draw(2, 4, 6)
    torch.testing.assert_close(attention(x, context[:, [2, 0, 3, 1]]), attention(x, context))


@torch.no_grad()
def test_without_a_context_tokens_attend_to_one_another():
    attention = Attention(16, num_heads=4)
    x = draw(2, 5, 16)
    torch.testing.assert_close(attention(x), attention(x, x), rtol=0, atol=0)


@torch.no_grad()
def test_heads_do_not_see_one_another():
    attention = Attention(8, num_heads=2)
    heads = draw(1, 2, 3, 4)
    other = heads.clone()
    other[:, 1] += 1
    attention.out.weight.copy_(torch.eye(8))
    torch.testing.assert_close(attention.merge(other)[..., :4], attention.merge(heads)[..., :4])


def test_only_the_output_projection_has_a_bias():
    names = {name for name, _ in Attention(8, num_heads=1).named_parameters()}
    assert names == {"query.weight", "key.weight", "value.weight", "out.weight", "out.bias"}


def test_heads_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match="10 channels cannot be split into 4 heads"):
        Attention(10, num_heads=4)
