"""Spec files: found, extended, overridden; every fault with its file, line and path."""

import os
import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lavie.builtin
from lavie.blocks.unet import UNetSpec
from lavie.errors import SpecError
from lavie.registry import Registry
from lavie.spec import Spec, dump, spec_hash
from lavie.specfile import SPECS, load_document, load_spec, shipped
from lavie.stages import LatentDiffusionSpec

REGISTRY = Registry(lavie.builtin)
BASE = (SPECS / "base.yaml").read_text(encoding="utf-8")


def load(name: str | Path, *overrides: str, kind: str = "") -> LatentDiffusionSpec:
    spec = load_spec(name, REGISTRY, overrides, kind)
    assert isinstance(spec, LatentDiffusionSpec)
    return spec


def unet(spec: LatentDiffusionSpec) -> UNetSpec:
    assert isinstance(spec.denoiser, UNetSpec)
    return spec.denoiser


def refusal(name: str | Path, *overrides: str, kind: str = "") -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(name, REGISTRY, overrides, kind)
    return str(caught.value)


def file(folder: Path, text: str, name: str = "spec.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", shipped())
def test_shipped_specs_load_and_round_trip(name: str) -> None:
    spec = load_spec(name, REGISTRY)
    again = REGISTRY.load(REGISTRY.kind(spec.kind), dump(spec))
    assert again == spec
    assert spec_hash(again) == spec_hash(spec)


def test_an_unknown_name_lists_what_ships() -> None:
    assert "spec 'base-tny': no such file. Did you mean 'base-tiny'? Shipped: base, base-tiny" in refusal("base-tny")


@pytest.mark.parametrize("name", ["nowhere/x.yaml", "x.yaml", "", "a\0b", "x" * 5000, "~nobody/x", "/dev/null", "."])
def test_what_is_no_file_is_refused_with_a_reason(name: str) -> None:
    assert "Shipped: base" in refusal(name)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, BASE)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be read: Permission denied" in refusal(path)


@pytest.mark.parametrize("text", ["[1, 2]", "ddpm", "3", "null"])
def test_a_document_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    assert "a spec is a mapping of keys to values" in refusal(file(tmp_path, text))


def test_load_document_resolves_nothing(tmp_path: Path) -> None:
    assert load_document(str(file(tmp_path, "extends: base\nsampler: ddim\n"))) == {
        "extends": "base",
        "sampler": "ddim",
    }


def test_the_kind_is_found_by_the_type(tmp_path: Path) -> None:
    assert load_spec(file(tmp_path, "type: unet\nchannels: [32]\nattention: true"), REGISTRY).kind == "denoiser"
    assert "type: 'none' names several kinds: bias, " in refusal(file(tmp_path, "type: none"))
    assert load_spec(file(tmp_path, "type: none"), REGISTRY, kind="temporal").kind == "temporal"
    unknown = refusal(file(tmp_path, "type: laten_diffusion"))
    assert "unknown stage 'laten_diffusion'. Did you mean 'latent_diffusion'?" in unknown
    assert "'type' is missing" in refusal(file(tmp_path, "channels: 3"))


def test_faults_come_with_file_line_and_path(tmp_path: Path) -> None:
    text = BASE.replace("num_frames: 16", "num_frames: 0").replace("scale: 7.5", "scal: 7.5")
    path = file(tmp_path, text.replace("{type: rope, dim: 32}", "rop"))
    lines = {line.split(": ")[0]: line for line in refusal(path).splitlines()}
    numbers = {name: 1 + text[: text.index(name)].count("\n") for name in ("num_frames", "scal:", "position")}
    assert "video.num_frames: must be greater than or equal to 1 (got 0)" in lines[f"{path}:{numbers['num_frames']}"]
    assert "guidance.scal: unknown key. Did you mean 'scale'?" in lines[f"{path}:{numbers['scal:']}"]
    assert "temporal.position: unknown position 'rop'. Did you mean 'rope'?" in lines[f"{path}:{numbers['position']}"]


def test_a_value_given_at_a_path_replaces_the_node_there(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "extends: base\ndenoiser.transformer.temporal: none\nsampler: ddim\nsampler.num_inference_steps: 7\n"
        "denoiser.channels[1]: 384\ndenoiser.attention.mid: false\nvideo: {num_frames: 4}\n",
    )
    spec, base = load(path), load("base")
    assert dump(unet(spec).transformer)["temporal"] == {"type": "none"}
    assert (dump(spec.sampler)["type"], dump(spec.sampler)["num_inference_steps"]) == ("ddim", 7)
    assert unet(spec).channels == (320, 384, 1280, 1280)
    assert not unet(spec).attention.at_mid()
    assert (spec.video.num_frames, spec.video.height) == (4, type(spec.video)().height)
    assert spec.text_encoder == base.text_encoder


def test_a_child_of_a_child_extends_both(tmp_path: Path) -> None:
    file(tmp_path, "extends: base\nsampler.num_inference_steps: 7\nguidance.scale: 2", "child.yaml")
    path = file(tmp_path, "extends: child.yaml\nguidance.scale: 3", "grandchild.yaml")
    assert dump(load(path))["sampler"]["num_inference_steps"] == 7
    assert dump(load(path))["guidance"]["scale"] == 3.0


def test_extends_works_inside_a_document(tmp_path: Path) -> None:
    file(tmp_path, "type: unet\nchannels: [32, 64]\nattention: true\nnorm: {groups: 8}", "net.yaml")
    path = file(tmp_path, BASE.split("denoiser:")[0] + "denoiser: {extends: net.yaml, norm.groups: 4}")
    assert unet(load(path)).channels == (32, 64)
    assert unet(load(path)).norm.groups == 4


def test_a_fault_in_a_child_is_told_with_the_childs_line(tmp_path: Path) -> None:
    path = file(tmp_path, "extends: base\n\nguidance.scale: high\ndenoiser.norm: {group: 3}\n")
    assert f"{path}:3: guidance.scale: must be a valid number (got 'high')" in refusal(path)
    assert f"{path}:4: denoiser.norm.group: unknown key. Did you mean 'groups'?" in refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: spec.yaml", "spec.yaml:1: extends: runs in a circle: spec.yaml → spec.yaml"),
        ("extends: [base]", "spec.yaml:1: extends: must be the name or path of a spec, got ['base']"),
        ("\nextends: bass", "spec.yaml:2: extends: spec 'bass': no such file. Did you mean 'base'?"),
        ("extends: base\nsampller.offset: 1", "spec.yaml:2: sampller.offset: the spec has no 'sampller'. Did you mean"),
        ("extends: base\nsampler.ofset: 1", "spec.yaml:2: sampler.ofset: unknown key. Did you mean 'offset'?"),
        ("extends: base\ndenoiser.channels[9]: 1", "denoiser.channels has 4 values, [0] to [3]"),
        ("extends: base\nguidance.scale.x: 1", "guidance.scale is 7.5, which has no parts; give it a whole value"),
        ("extends: base\ndenoiser..channels: 1", "denoiser..channels: unknown key"),
    ],
)
def test_what_cannot_be_extended_is_told(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(file(tmp_path, text))


def test_a_long_chain_and_many_bases_are_refused(tmp_path: Path) -> None:
    file(tmp_path, "extends: base", "0.yaml")
    for index in range(1, 12):
        file(tmp_path, f"extends: {index - 1}.yaml", f"{index}.yaml")
    assert load(tmp_path / "6.yaml") == load("base")
    assert "more than 8 deep or 64 in all are not followed" in refusal(tmp_path / "11.yaml")
    many = "".join(f"x{index}: {{extends: base}}\n" for index in range(70))
    assert "more than 8 deep or 64 in all" in refusal(file(tmp_path, many))


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["denoiser.transformer.temporal=none"], "denoiser.transformer.temporal", {"type": "none"}),
        (["guidance.scale=2"], "guidance.scale", 2.0),
        (["sampler={type: ddim, num_inference_steps: 3}"], "sampler.num_inference_steps", 3),
        (["sampler=ddim", "sampler.num_inference_steps=4"], "sampler.num_inference_steps", 4),
        (["sampler.type=euler", "sampler.num_inference_steps=5"], "sampler.num_inference_steps", 5),
        (["sampler.type=ddpm"], "sampler.offset", 0),
        (["denoiser.channels[0]=256"], "denoiser.channels", [256, 640, 1280, 1280]),
        (["denoiser.channels.0=256"], "denoiser.channels", [256, 640, 1280, 1280]),
        (["denoiser.attention[3]=true"], "denoiser.attention.levels", [True, True, True, True]),
        (["denoiser.resblock=[inflated, inflated, modulated, inflated]"], "denoiser.resblock.2.type", "modulated"),
        ([" guidance.scale = 3 "], "guidance.scale", 3.0),
    ],
)
def test_overrides_change_one_place_in_order(overrides: list[str], path: str, value: object) -> None:
    node: object = dump(load("base", *overrides))
    for part in path.split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]  # type: ignore[index]
    assert node == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guidance.scale", "--set 'guidance.scale': an override reads path=value"),
        ("=3", "an override reads path=value"),
        ("guidance.scale=", "--set guidance.scale: has no value; write null or '' for nothing"),
        ("guidance.scale=[1", "--set guidance.scale"),
        ("guidance.scale=&a 1", "anchors are not accepted"),
        ("guidance.scale=much", "--set: guidance.scale: must be a valid number (got 'much')"),
        ("guidanc.scale=1", "--set: guidanc.scale: the spec has no 'guidanc'. Did you mean 'guidance'?"),
        ("guidance.scal=1", "--set: guidance.scal: unknown key. Did you mean 'scale'?"),
        ("sampler.type=dddim", "--set: sampler: unknown sampler 'dddim'. Did you mean 'ddim'?"),
        ("denoiser.channels=[1000000000]", "--set: denoiser.channels[0]: must be less than or equal to 65536"),
        ("video.num_frames=1000000000000", "--set: video.num_frames: must be less than or equal to"),
        ("denoiser.channels=[320]", "denoiser: attention has 4 values for 1 levels"),
    ],
)
def test_a_bad_override_is_told_by_its_path(override: str, message: str) -> None:
    assert message in refusal("base", override)


def test_a_field_below_a_per_level_list_needs_an_index() -> None:
    levels = "denoiser.transformer.temporal=[attention, attention, none, none]"
    assert "is a list of 4; name one of them, as in denoiser.transformer.temporal[0].position" in refusal(
        "base", levels, "denoiser.transformer.temporal.position=none"
    )


def mutated(text: str, seed: int) -> str:
    """Return a spec file with a few things deleted, doubled, swapped or replaced."""
    rng = random.Random(seed)
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(text))
        stop = min(len(text), start + rng.randrange(1, 12))
        piece = text[start:stop]
        other = "".join(rng.choice(string.printable + "é東\x00") for _ in range(rng.randrange(4)))
        replacement = rng.choice(["", piece * 2, piece[::-1], other, "99999999999", "{}", "[]", "null", "- ", "\n"])
        text = text[:start] + replacement + text[stop:]
    return text


@settings(derandomize=True, max_examples=100, deadline=None, database=None)
@given(st.integers(0, 2**32))
def test_a_damaged_file_is_refused_or_loads_and_round_trips(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    path = file(tmp_path_factory.getbasetemp(), mutated(BASE, seed), "mutated.yaml")
    try:
        spec: Spec = load_spec(path, REGISTRY)
    except SpecError as error:
        unplaced = [line for line in str(error).splitlines() if "mutated.yaml" not in line]
    else:
        unplaced = []
        assert REGISTRY.load(REGISTRY.kind(spec.kind), dump(spec)) == spec
    assert not unplaced


def test_faulty_paths_are_told_together_and_with_the_faults_of_values(tmp_path: Path) -> None:
    path = file(
        tmp_path, "extends: base-tiny\ngidance.scale: 3\nsampler: eulr\ndenoiser.channels[9]: 64\nvideo.fps: 8\n"
    )
    told = refusal(path).splitlines()
    assert [line.removeprefix(f"{path}:").split(": ")[0] for line in told] == ["2", "4", "3"]
    assert "Did you mean 'guidance'?" in told[0]
    assert "denoiser.channels has 2 values" in told[1]
    assert "unknown sampler 'eulr'. Did you mean 'euler'?" in told[2]


def test_faulty_overrides_are_told_together() -> None:
    told = refusal("base-tiny", "gidance.scale=3", "video.num_frame=3", "x", "sampler=ddmi", "seed").splitlines()
    starts = ["--set: gidance.scale: ", "--set 'x': ", "--set 'seed': ", "--set: video.num_frame: ", "--set: sampler: "]
    assert len(told) == len(starts)
    assert all(any(line.startswith(start) for line in told) for start in starts)


def test_lists_of_a_wrong_length_are_told_in_words_of_ours(tmp_path: Path) -> None:
    assert "denoiser.channels: must have at least 1 value (got 0)" in refusal("base-tiny", "denoiser.channels=[]")
    assert "denoiser.channels: must have at most 16 values (got 17)" in refusal(
        "base-tiny", f"denoiser.channels={[8] * 17}"
    )
    assert "denoiser.channels: must be a list (got 64)" in refusal("base-tiny", "denoiser.channels=64")
    told = refusal("base-tiny", "denoiser.channels=[0, 0]").splitlines()
    assert [line.split(": ")[1] for line in told] == ["denoiser.channels[0]", "denoiser.channels[1]"]
