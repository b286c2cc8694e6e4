"""Comparison with recorded numbers: what passes, what fails, and what a broken file leads to."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lavie.blocks.base import Conditioning
from lavie.verification import verify_file
from lavie.verification.comparison import EXACT, Bound, Check, MismatchError, Place, measure, worst
from lavie.weights.unet import map_for, spec_from_config

GOLDEN = Path(__file__).parent / "golden"
Tensors = dict[str, Tensor]
Metadata = dict[str, str]


def read(name: str) -> tuple[Tensors, Metadata]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Write a recording again, with a change."""

    def write(name: str, change: Callable[[Tensors, Metadata], object], new_name: str = "") -> Path:
        tensors, metadata = read(name)
        change(tensors, metadata)
        path = tmp_path / f"{new_name or name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
        return path

    return write


def configure(**fields: object) -> Callable[[Tensors, Metadata], None]:
    def change(tensors: Tensors, metadata: Metadata) -> None:
        metadata["config"] = json.dumps(json.loads(metadata["config"]) | fields)

    return change


def test_one_changed_weight_fails(changed):
    def change(tensors: Tensors, metadata: Metadata) -> None:
        tensors["weights.conv_out.weight"][0, 0, 1, 1] += 0.01

    result = verify_file(changed("interp_smallscale", change))
    assert result.status == "fail"
    assert result.max_error > 1e-4
    assert "output is" in result.detail
    assert result.bound == "5e-05 abs"


@pytest.mark.parametrize("name", ["interp_smallscale", "vsr_smallscale"])
def test_a_wrong_norm_epsilon_fails(changed, name):
    assert verify_file(changed(name, configure(norm_eps=1e-6))).status == "fail"


def test_a_changed_output_of_any_kind_fails(changed):
    keys = {
        "vae_a": "output.moments",
        "clip_gelu": "output",
        "sched_ddim_lavie": "x",
        "resp_ddpm_10": "x",
        "train_losses": "vsr.loss",
        "misc_tables": "rel_pos_bucket.8",
    }
    for name, key in keys.items():

        def change(tensors: Tensors, metadata: Metadata, key: str = key) -> None:
            last = tensors[key].reshape(-1)[-1:]
            last += 1 if not last.is_floating_point() else 0.01 * tensors[key].abs().max()

        result = verify_file(changed(name, change))
        assert result.status == "fail", result
        assert f"{key} is" in result.detail


def test_weights_that_do_not_fit_fail_with_the_reason(changed):
    result = verify_file(changed("interp_smallscale", lambda tensors, _: tensors.pop("weights.conv_in.bias")))
    assert (result.status, result.kind) == ("fail", "interpolation")
    assert result.detail == "weights do not fit this network: 1 missing key (conv_in.bias)"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"act_fn": "gelu"}, "a network with act_fn = 'gelu' cannot be built, only with 'silu'"),
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos = False cannot be built"),
        ({"up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"]}, "only of mirrored (CrossAttn)Down and Up"),
        ({"norm_num_groups": 7}, "cannot be split into 7 groups"),
        ({"block_out_channels": [10**9, 10**9]}, "less than or equal to 65536"),
    ],
)
def test_networks_without_a_counterpart_are_unsupported_with_the_reason(changed, fields, reason):
    result = verify_file(changed("interp_smallscale", configure(**fields)))
    assert result.status == "unsupported"
    assert reason in result.detail


def test_the_kind_is_told_by_the_content_whatever_the_name(changed):
    for name, kind in (
        ("interp_smallscale", "interpolation"),
        ("vsr_smallscale", "upscaling"),
        ("clip_gelu", "text_encoder"),
        ("sched_ddim_lavie", "sampler"),
        ("train_losses", "losses"),
    ):
        result = verify_file(changed(name, lambda tensors, metadata: None, new_name="base_renamed"))
        assert (result.status, result.kind) == ("pass", kind), result


def predict(tensors: Tensors, metadata: Metadata, context: Tensor) -> Tensor:
    """Run the recorded interpolation network on another text."""
    spec = spec_from_config(json.loads(metadata["config"]), "interpolation")
    network = spec.build().eval()
    state = {key.removeprefix("weights."): value.float() for key, value in tensors.items() if key.startswith("weights")}
    map_for(spec).load(network, state)
    noisy, frames = tensors["inputs.sample"].split(4, dim=1)
    with torch.inference_mode():
        return network(noisy, tensors["inputs.timestep"], Conditioning(context, inputs={"frames": frames}))


@pytest.mark.parametrize(("text_first", "status"), [(True, "pass"), (False, "fail")])
def test_guidance_takes_the_first_half_with_text_and_without(changed, text_first, status):
    def change(tensors: Tensors, metadata: Metadata) -> None:
        text, sample = tensors["inputs.encoder_hidden_states"], tensors["inputs.sample"]
        without = predict(tensors, metadata, -text)
        guided = without + 3.0 * (tensors["output"] - without)
        tensors["output"] = torch.cat((guided, guided))
        tensors["inputs.sample"] = torch.cat((sample, torch.zeros_like(sample)))
        tensors["inputs.timestep"] = tensors["inputs.timestep"].repeat(2)
        tensors["inputs.encoder_hidden_states"] = torch.cat((text, -text) if text_first else (-text, text))
        metadata["call"] = json.dumps({"cfg": True, "cfg_scale": 3.0})

    assert verify_file(changed("interp_smallscale", change)).status == status


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_has_bounds_of_its_own(dtype):
    result = verify_file(GOLDEN / "base_joint.safetensors", dtype=dtype)
    assert result.status == "pass", result
    assert result.bound.endswith("L2")
    assert result.max_error > 1e-4


def test_what_is_no_recording_is_a_row_and_no_exception(tmp_path):
    whole = (GOLDEN / "clip_gelu.safetensors").read_bytes()
    contents = {
        "empty": (b"", "cannot be read"),
        "text": (b"not a tensor in sight", "cannot be read"),
        "cut": (whole[: len(whole) // 2], "cannot be read"),
        "long_header": ((2**62).to_bytes(8, "little") + b"{}", "cannot be read"),
    }
    for name, (content, reason) in contents.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        result = verify_file(path)
        assert (result.name, result.status) == (name, "error")
        assert reason in result.detail
    assert "cannot be read" in verify_file(tmp_path / "missing.safetensors").detail


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors, metadata: metadata.pop("config"), "lacks the metadata 'config'"),
        (lambda tensors, metadata: metadata.update(config="[1]"), "lacks the metadata 'config'"),
        (lambda tensors, metadata: tensors.pop("output"), "lacks 'output'"),
        (lambda tensors, metadata: tensors.update(output=torch.empty(0)), "holds no numbers under 'output'"),
        (lambda tensors, metadata: configure(hidden_size=None)(tensors, metadata), "TypeError"),
    ],
)
def test_a_recording_that_lacks_something_is_an_error_with_the_reason(changed, change, reason):
    result = verify_file(changed("clip_gelu", change))
    assert result.status == "error"
    assert reason in result.detail


def test_a_file_of_other_tensors_is_no_recording(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    result = verify_file(tmp_path / "model.safetensors")
    assert result.status == "error"
    assert "no kind of recorded numbers" in result.detail


def test_tables_without_a_counterpart_are_named(changed):
    result = verify_file(changed("misc_tables", lambda tensors, _: tensors.update(new_table=torch.ones(2))))
    assert result.status == "pass"
    assert result.detail == "no counterpart yet: new_table"


def test_every_recorded_table_has_a_counterpart():
    assert verify_file(GOLDEN / "misc_tables.safetensors").detail == ""


TABLES = [
    "space_timesteps.10_20_30",
    "interp_cond_frame_source",
    "interp_input_frame_index_16_to_61",
    "rel_pos_bucket.61",
]


@pytest.mark.parametrize("key", TABLES)
def test_a_table_with_one_other_number_fails(changed, key):
    def change(tensors: Tensors, metadata: Metadata) -> None:
        tensors[key].view(-1)[-1] += 1

    result = verify_file(changed("misc_tables", change))
    assert result.status == "fail"
    assert key in result.detail


@pytest.mark.parametrize("key", ["pred_xstart", "posterior_variance", "x"])
def test_everything_that_a_respaced_recording_holds_is_compared(changed, key):
    def change(tensors: Tensors, metadata: Metadata) -> None:
        tensors[key] = tensors[key] + 1e-3 * tensors[key].abs().max()

    result = verify_file(changed("resp_ddim_15", change))
    assert result.status == "fail"
    assert key in result.detail


def check(found: list[float], expected: list[float], bound: Bound) -> Check:
    return Check("values", torch.tensor(found), torch.tensor(expected), bound)


def test_each_measure_means_what_it_says():
    found, expected = [1.0, 2.0, -4.5], [1.0, 2.0, -4.0]
    sizes = {"absolute": 0.5, "relative": 0.125, "l2": 0.5 / 21**0.5}
    for name, size in sizes.items():
        assert measure(check(found, expected, Bound(1.0, name))).excess == pytest.approx(size)
    assert not measure(check(found, expected, EXACT)).passes
    assert measure(check(expected, expected, EXACT)).passes


def test_what_is_not_a_number_never_passes():
    nothing = float("nan")
    assert not measure(check([nothing], [1.0], Bound(1.0, "absolute"))).passes
    assert not measure(check([nothing], [nothing], EXACT)).passes
    differences = [measure(check([x], [1.0], Bound(1.0, "absolute"))) for x in (1.0, nothing, 9.0)]
    assert worst(differences) is differences[1]


def test_other_shapes_are_no_match():
    with pytest.raises(MismatchError, match=r"values has the shape \(2,\), recorded was \(1,\)"):
        measure(check([1.0, 1.0], [1.0], EXACT))


def test_bounds_widen_off_the_cpu_and_in_half_precision_only():
    strict = Bound(5e-5, "absolute")
    assert Place(torch.device("cpu"), torch.float32).bound(strict) == strict
    assert Place(torch.device("cuda"), torch.float32).bound(strict) == Bound(2e-4, "absolute")
    assert Place(torch.device("cuda"), torch.bfloat16).bound(strict) == Bound(5e-2, "l2")
