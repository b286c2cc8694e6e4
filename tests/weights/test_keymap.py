import pytest
import torch
from torch import nn

from lavie.errors import WeightsError
from lavie.weights.keymap import Derived, KeyMap, Rule, load, under

BLOCK = (Rule("first.{leaf}", "norm.{leaf}"), Rule("second.weight", "to_out.0.weight", aliases=("proj.weight",)))
NAMES = KeyMap(
    (*under("down.{i}.blocks.{j}.", "down_blocks.{i}.resnets.{j}.", BLOCK), Rule("table", "table.weight")),
    derived=(Derived("ids", beside="table", value=lambda table: torch.arange(len(table))),),
    prefix="model.",
)
PAIRS = {
    "down.0.blocks.12.first.bias": "model.down_blocks.0.resnets.12.norm.bias",
    "down.3.blocks.0.second.weight": "model.down_blocks.3.resnets.0.to_out.0.weight",
    "table": "model.table.weight",
}


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.one = nn.Linear(2, width)
        self.two = nn.Linear(width, 2, bias=False)


NET_NAMES = KeyMap((Rule("one.{leaf}", "a.{leaf}"), Rule("two.{leaf}", "b.{leaf}")))


def official(net: Net) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in NET_NAMES.convert_to_official(net.state_dict()).items()}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.items())
def test_names_translate_both_ways(ours, theirs):
    assert NAMES.to_official(ours) == theirs
    assert NAMES.from_official(theirs) == ours


def test_an_alias_is_read_but_never_written():
    ours = NAMES.from_official("model.down_blocks.0.resnets.1.proj.weight")
    assert ours == "down.0.blocks.1.second.weight"
    assert NAMES.to_official(ours) == "model.down_blocks.0.resnets.1.to_out.0.weight"


def test_the_prefix_may_be_missing_when_reading():
    assert NAMES.from_official("table.weight") == "table"


@pytest.mark.parametrize(
    "key", ["down.x.blocks.0.first.bias", "down.0.blocks.0.first.a.b", "down.0.blocks.0.first", ""]
)
def test_a_key_that_no_rule_matches_whole_is_refused(key):
    with pytest.raises(WeightsError, match="matches no rule"):
        NAMES.to_official(key)


def test_dots_in_a_pattern_stand_for_dots_only():
    with pytest.raises(WeightsError, match="matches no rule"):
        NAMES.from_official("tableXweight")


def test_a_key_that_two_rules_match_is_refused_with_both_names():
    vague = KeyMap((Rule("a.{leaf}", "x.{leaf}"), Rule("a.weight", "y.weight")))
    assert vague.to_official("a.bias") == "x.bias"
    with pytest.raises(WeightsError, match=r"more than one rule, giving x\.weight and y\.weight"):
        vague.to_official("a.weight")


def test_a_rule_whose_sides_disagree_on_placeholders_is_refused():
    with pytest.raises(ValueError, match="same placeholders"):
        KeyMap((Rule("a.{i}.weight", "b.{j}.weight"),))


def test_a_state_dict_survives_the_round_trip():
    state = {ours: torch.randn(2, 2) for ours in PAIRS}
    written = NAMES.convert_to_official(state)
    assert set(written) == {*PAIRS.values(), "model.ids"}
    again = NAMES.convert_from_official(written)
    assert again.keys() == state.keys()
    assert all(again[key] is state[key] for key in state)


def test_derived_tensors_can_be_left_out_of_a_file_and_are_then_not_missed():
    written = NAMES.convert_to_official({"table": torch.zeros(4, 2)}, derived=False)
    assert set(written) == {"model.table.weight"}
    assert set(NAMES.convert_from_official(written)) == {"table"}


def test_every_place_gets_its_own_derived_tensor():
    names = KeyMap(
        (Rule("layers.{i}.w", "l.{i}.w"),),
        derived=(Derived("l.{i}.freqs", beside="layers.{i}.w", value=lambda w: w.sum(dim=1)),),
    )
    written = names.convert_to_official({f"layers.{i}.w": torch.full((2, 2), float(i)) for i in range(3)})
    assert set(written) == {f"l.{i}.{name}" for i in range(3) for name in ("w", "freqs")}
    assert written["l.2.freqs"].tolist() == [4.0, 4.0]


@pytest.mark.parametrize("ids", [torch.arange(4) + 1, torch.arange(5)])
def test_a_derived_tensor_with_other_values_or_shape_is_refused(ids):
    with pytest.raises(WeightsError, match=r"model\.ids holds other values"):
        NAMES.convert_from_official({"model.table.weight": torch.zeros(4, 2), "model.ids": ids})


def test_a_derived_tensor_rounded_to_half_precision_is_accepted():
    frequencies = 10000 ** -(torch.arange(16) / 16)
    names = KeyMap((Rule("w", "w"),), derived=(Derived("freqs", beside="w", value=lambda _: frequencies),))
    for dtype in (torch.float16, torch.bfloat16):
        assert set(names.convert_from_official({"w": torch.zeros(1), "freqs": frequencies.to(dtype)})) == {"w"}


def test_a_derived_tensor_without_its_neighbour_is_unexpected():
    with pytest.raises(WeightsError, match=r"1 unexpected key \(model\.ids\)"):
        NAMES.convert_from_official({"model.ids": torch.arange(4)})


def test_unknown_keys_of_a_file_are_counted_and_the_first_few_named():
    with pytest.raises(WeightsError, match=r"7 unexpected keys \(x0, x1, x2, x3, x4, and 2 more\)"):
        NAMES.convert_from_official({f"x{i}": torch.zeros(1) for i in range(7)})


def test_one_tensor_under_two_names_is_refused():
    file = {f"down_blocks.0.resnets.0.{name}.weight": torch.zeros(1) for name in ("to_out.0", "proj")}
    with pytest.raises(WeightsError, match=r"twice, as .*to_out\.0.* and as .*proj"):
        NAMES.convert_from_official(file)


def test_loading_gives_the_module_the_values_of_the_file():
    source, target = Net(), Net()
    NET_NAMES.load(target, official(source))
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in target.state_dict().items())


def test_a_module_on_meta_can_take_the_tensors_over():
    source = Net()
    with torch.device("meta"):
        target = Net()
    NET_NAMES.load(target, official(source), assign=True)
    assert torch.equal(target.two.weight, source.two.weight)


def test_a_file_that_does_not_fit_is_refused_with_its_own_names_and_nothing_is_loaded():
    target = Net()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    file = official(Net(width=5))
    file["c.weight"] = file.pop("a.bias")
    with pytest.raises(WeightsError) as caught:
        NET_NAMES.load(target, file)
    message = str(caught.value)
    assert "1 missing key (a.bias)" in message
    assert "1 unexpected key (c.weight)" in message
    assert "2 misshapen keys (a.weight is (5, 2) in the file and (3, 2) in the network" in message
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_loading_our_own_names_is_as_strict():
    target = Net()
    state = dict(target.state_dict())
    load(target, state)
    del state["one.bias"]
    with pytest.raises(WeightsError, match=r"1 missing key \(one\.bias\)"):
        load(target, state)
