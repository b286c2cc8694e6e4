"""Attention kernels: all that work here give the plain numbers, and the others are refused with the reason."""

import sys
import threading
from types import ModuleType

import pytest
import torch
from torch import Tensor

from lavie.blocks import attention
from lavie.blocks.attention import attend, in_pieces
from lavie.blocks.kernels import KERNELS, VARIABLE, attention_in_use, check_attention, plain, use_attention, why_not
from lavie.errors import SpecError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Ask anew, and let no setting of this machine take part."""
    monkeypatch.delenv(VARIABLE, raising=False)
    why_not.cache_clear()
    yield
    why_not.cache_clear()


def draw(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(device, dtype)


def biases(q: int, s: int) -> dict[str, Tensor | None]:
    causal = torch.full((q, s), float("-inf")).triu(1)
    return {"none": None, "of each head": draw(2, q, s), "of all heads": draw(q, s), "causal": causal}


def skip_unless_it_works(name: str, device: str, dtype: torch.dtype = torch.float32) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if reason := why_not(name, torch.device(device), dtype):
        pytest.skip(f"{name} does not work on {device}: {reason}")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("head_dim", [40, 80, 160])
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_that_works_here_gives_the_plain_numbers(name, head_dim, device):
    skip_unless_it_works(name, device)
    for q, s in ((16, 16), (13, 13), (61, 61), (20, 77)):
        query, key, value = draw(3, 2, q, head_dim), draw(3, 2, s, head_dim), draw(3, 2, s, head_dim)
        for label, bias in biases(q, s).items():
            four = None if bias is None else bias.reshape(1, -1, q, s).double()
            expected = plain(query.double(), key.double(), value.double(), four)
            given = [None if each is None else each.to(device) for each in (query, key, value, bias)]
            with use_attention(name, device):
                found = attend(*given)
            torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-5, atol=1e-5, msg=f"{label} {q}x{s}")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_that_works_here_has_the_plain_gradients(name, device):
    skip_unless_it_works(name, device)
    gradients = []
    for each in ("math", name):
        given = [draw(*shape, device=device).requires_grad_() for shape in ((3, 2, 13, 40),) * 3 + ((2, 13, 13),)]
        with use_attention(each, device):
            attend(*given).square().sum().backward()
        gradients.append([tensor.grad for tensor in given])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", KERNELS)
def test_in_half_precision_kernels_round_and_no_more(name, dtype, device):
    skip_unless_it_works(name, device, dtype)
    given = [draw(*shape, dtype=dtype) for shape in ((3, 2, 16, 40),) * 3]
    expected = plain(*(each.double() for each in given), None)
    with use_attention(name, device, dtype):
        found = attend(*(each.to(device) for each in given))
    assert found.dtype == dtype
    assert (found.cpu().double() - expected).norm() / expected.norm() < 4 * torch.finfo(dtype).eps


def test_a_choice_holds_within_its_context_and_in_other_threads(monkeypatch):
    monkeypatch.setitem(KERNELS, "named", lambda query, key, value, bias: plain(query, key, value, bias))
    seen: list[str] = []
    with use_attention("named", "cpu"):
        thread = threading.Thread(target=lambda: seen.append(attention_in_use()))
        thread.start()
        thread.join()
        with use_attention(None, "cpu"):
            seen.append(attention_in_use())
        with use_attention("math", "cpu"):
            seen.append(attention_in_use())
    seen.append(attention_in_use())
    assert seen == ["named", "named", "math", "sdpa"]


def test_the_environment_chooses_where_nothing_else_does(monkeypatch):
    calls: list[str] = []

    def counting(*given: Tensor | None) -> Tensor:
        calls.append("named")
        return plain(*given)

    monkeypatch.setitem(KERNELS, "named", counting)
    monkeypatch.setenv(VARIABLE, "named")
    query = draw(1, 1, 2, 4)
    attend(query, query, query)
    assert calls == ["named"]
    with use_attention("math", "cpu"):
        attend(query, query, query)
    assert calls == ["named"]
    monkeypatch.setenv(VARIABLE, "")
    assert attention_in_use() == "sdpa"


def test_an_unknown_name_is_answered_with_those_that_exist(monkeypatch):
    known = r"Known: sdpa, math, xformers"
    with pytest.raises(SpecError, match=rf"^attention: unknown kernel 'xformer'. Did you mean 'xformers'\? {known}"):
        check_attention("xformer", "cpu")
    monkeypatch.setenv(VARIABLE, "flash")
    with pytest.raises(SpecError, match=rf"^{VARIABLE}: unknown kernel 'flash'. {known}"):
        check_attention(None, "cpu")
    with pytest.raises(SpecError, match="unknown kernel 'flash'"):
        attend(*[draw(1, 1, 2, 4)] * 3)


def refusal(name: str, monkeypatch: pytest.MonkeyPatch, kernel: object) -> str:
    monkeypatch.setitem(KERNELS, name, kernel)
    with pytest.raises(SpecError) as caught, use_attention(name, "cpu"):
        pytest.fail("a kernel that does not work is in use")
    return str(caught.value)


def test_a_kernel_that_gives_other_numbers_is_refused(monkeypatch):
    def forgetful(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        return plain(query, key, value, None)

    message = refusal("forgetful", monkeypatch, forgetful)
    assert message.startswith(
        "attention: forgetful does not work on cpu in float32: with a bias and with heads 40 wide"
    )
    assert message.endswith("Use sdpa, math")
    assert "without a bias" in refusal("nan", monkeypatch, lambda query, key, value, bias: query * float("nan"))


def stand_in(monkeypatch: pytest.MonkeyPatch, **functions: object) -> None:
    ops = ModuleType("xformers.ops")
    vars(ops).update(functions)
    monkeypatch.setitem(sys.modules, "xformers", ModuleType("xformers"))
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)


def test_xformers_is_refused_where_its_operators_do_not_run(monkeypatch):
    def no_operator(*args: object, **kwargs: object) -> Tensor:
        raise NotImplementedError("No operator found for this:\n  device=cpu (supported: {'cuda'})")

    stand_in(monkeypatch, memory_efficient_attention=no_operator)
    with pytest.raises(SpecError, match=r"on cpu in float32: NotImplementedError: No operator found for this. Use"):
        check_attention("xformers", "cpu")


def test_xformers_is_refused_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    with pytest.raises(SpecError, match=r"xformers\.ops.*; pip install 'lavie\[xformers\]'"):
        check_attention("xformers", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_the_real_xformers_is_refused_on_a_cpu():
    pytest.importorskip("xformers")
    assert "NotImplementedError" in why_not("xformers", torch.device("cpu"), torch.float32)


def test_xformers_gets_the_layout_that_it_asks_for(monkeypatch):
    def checking(query: Tensor, key: Tensor, value: Tensor, attn_bias: Tensor | None) -> Tensor:
        n, q, k, d = query.shape
        assert key.shape == value.shape == (n, key.shape[1], k, d)
        if attn_bias is not None:
            assert attn_bias.shape == (n, k, q, key.shape[1])
            assert attn_bias.dtype == query.dtype
            assert attn_bias.stride(-1) == 1
            assert all(stride % 8 == 0 for stride in attn_bias.stride()[:-1])
        tokens_last = (each.transpose(1, 2) for each in (query, key, value))
        weights = attn_bias if attn_bias is None else attn_bias[:1]
        return plain(*tokens_last, weights).transpose(1, 2)

    stand_in(monkeypatch, memory_efficient_attention=checking)
    for q, s in ((16, 16), (5, 13), (61, 61)):
        given = draw(3, 2, q, 40), draw(3, 2, s, 40), draw(3, 2, s, 40)
        for bias in biases(q, s).values():
            with use_attention("xformers", "cpu"):
                found = attend(*given, bias)
            torch.testing.assert_close(found, attend(*given, bias))


def test_pieces_of_a_batch_give_what_the_whole_gives(monkeypatch):
    monkeypatch.setattr(attention, "MAX_BATCH", 4)
    given = [draw(11, 2, 5, 8) for _ in range(3)]
    sizes: list[int] = []

    def counting(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        sizes.append(len(query))
        return plain(query, key, value, bias)

    bias = draw(1, 2, 5, 5)
    torch.testing.assert_close(in_pieces(counting, *given, bias), plain(*given, bias))
    assert sizes == [4, 4, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", KERNELS)
def test_a_batch_beyond_the_limit_of_a_launch_runs(name):
    skip_unless_it_works(name, "cuda", torch.float16)
    given = [draw(70_000, 2, 4, 40, device="cuda", dtype=torch.float16) for _ in range(3)]
    bias = draw(2, 4, 4, device="cuda", dtype=torch.float16)
    with use_attention(name, "cuda", torch.float16):
        found = attend(*given, bias)
        torch.testing.assert_close(found[-9:], attend(*(each[-9:] for each in given), bias), rtol=1e-2, atol=1e-2)


def test_shapes_are_known_without_numbers_whatever_the_kernel(monkeypatch):
    monkeypatch.setenv(VARIABLE, "xformers")
    query = torch.empty(3, 2, 5, 8, device="meta")
    assert attend(query, query, query).shape == query.shape
