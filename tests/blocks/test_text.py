import pytest
import torch

from lavie.blocks.text import ClipText, ClipTextSpec, QuickGelu
from lavie.blocks.tokenizer import ClipBpeSpec, WordsSpec

WORDS = WordsSpec(vocabulary=("a", "red", "circle", "moves", "left"))
SMALL = ClipTextSpec(width=16, num_layers=2, num_heads=4, max_tokens=8, tokenizer=WORDS)


@pytest.fixture
def encoder() -> ClipText:
    torch.manual_seed(0)
    return SMALL.build()


@torch.no_grad()
def test_context_has_one_token_of_the_contexts_width_per_position(encoder):
    context = encoder.encode(["a red circle", "", "a circle moves left and left and left and left"])
    assert context.shape == (3, encoder.max_tokens, encoder.context_dim) == (3, 8, 16)


@torch.no_grad()
def test_encoding_is_tokenizing_and_then_the_network(encoder):
    prompts = ["a red circle", "left"]
    assert torch.equal(encoder.encode(prompts), encoder(encoder.tokenize(prompts)))


@torch.no_grad()
def test_no_prompts_give_an_empty_context(encoder):
    assert encoder.encode([]).shape == (0, 8, 16)


@torch.no_grad()
def test_a_token_sees_only_the_tokens_before_it(encoder):
    ids = torch.tensor([[1, 4, 5, 6, 7, 2, 0, 0]])
    changed = ids.clone()
    changed[0, 4] = 8
    difference = (encoder(changed) - encoder(ids)).abs().amax(dim=2)[0]
    assert difference[:4].max() == 0
    assert difference[4:].min() > 1e-4


@torch.no_grad()
def test_padding_does_not_reach_the_words(encoder):
    ids = encoder.tokenize(["a red circle"])
    torch.testing.assert_close(encoder(ids[:, :5]), encoder(ids)[:, :5], rtol=0, atol=1e-5)


@torch.no_grad()
def test_prompts_of_a_batch_do_not_see_each_other(encoder):
    both = encoder.encode(["a red circle", "moves left"])
    torch.testing.assert_close(both[1:], encoder.encode(["moves left"]), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_order_of_words_matters(encoder):
    first, second = encoder.encode(["red circle", "circle red"])
    assert (first[2] - second[2]).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient(encoder):
    torch.linspace(-1, 1, 16).mul(encoder.encode(["a red circle moves left"])).sum().backward()
    # A bias on the keys shifts all logits of a query alike, so its gradient is zero but for rounding.
    idle = {name for name, each in encoder.named_parameters() if each.grad is None or not each.grad.any()}
    assert {name for name in idle if not name.endswith("key.bias")} == set()


def test_lost_words_are_those_that_do_not_reach_the_context(encoder):
    assert encoder.lost_words("a red circle") == []
    assert encoder.lost_words("a green circle") == ["green"]
    assert encoder.lost_words("a red circle moves left left left") == ["left"]


def test_more_tokens_than_positions_are_refused(encoder):
    with pytest.raises(ValueError, match="9 tokens, but this encoder takes at most 8"):
        encoder(torch.zeros(1, 9, dtype=torch.long))


def test_a_table_smaller_than_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocab_size is 8, but the tokenizer has 9 tokens"):
        SMALL.model_copy(update={"vocab_size": 8}).build()


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="16 cannot be split into num_heads = 3 heads"):
        ClipTextSpec(width=16, num_heads=3)


def test_the_table_has_a_row_for_every_token_of_the_tokenizer(encoder):
    assert encoder.token_embedding.num_embeddings == 9
    with torch.device("meta"):
        full = ClipTextSpec(num_layers=1, tokenizer=ClipBpeSpec()).build()
    assert full.token_embedding.num_embeddings == 49408


def test_quick_gelu_is_near_gelu_and_not_equal_to_it():
    x = torch.linspace(-4, 4, 81).reshape(1, 9, 9)
    difference = (QuickGelu()(x) - torch.nn.functional.gelu(x)).abs().max()
    assert 0.01 < difference < 0.03
