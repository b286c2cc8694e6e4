"""`lavie convert`: every published layout in, every one out again, bit by bit; half matches leave nothing behind."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published import (
    IMAGE,
    official,
    same_bits,
    single_file,
    small_spec,
    states,
    unpickled_here,
    write_diffusers,
    write_spec,
)
from safetensors.torch import load_file, save_file

from lavie.cli.app import run
from lavie.stages import load_stage
from lavie.weights.files import read_manifest

Convert = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read our own pickles in this process."""
    monkeypatch.setattr("lavie.weights.source.unpickled", unpickled_here)


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Convert:
    """Run the verb; return exit code, stdout and stderr."""

    def call(*tokens: object) -> tuple[int, str, str]:
        code = run(["convert", *map(str, tokens)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_spec(tmp_path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write the denoiser as LaVie publishes it."""
    path = tmp_path / "lavie_base.pt"
    torch.save({"ema": official(small_spec(tmp_path), "denoiser", "official"), "step": 3}, path)
    return path


@pytest.fixture
def sd(tmp_path: Path) -> Path:
    """Write the image model it descends from."""
    return write_diffusers(tmp_path / "sd", small_spec(tmp_path, IMAGE))


def test_the_published_files_together_make_a_stage_that_generates(convert, base, sd, spec, tmp_path, capsys):
    out = tmp_path / "out"
    code, said, _ = convert(sd, "--part", f"denoiser={base}", "--spec", spec, "--output", out)
    assert code == 0
    assert re.search(r"denoiser: .*lavie_base\.pt \(names of diffusers and LaVie, under 'ema'\): ", said)
    assert "left over: step: no tensor (int)" in said
    stage = load_stage(small_spec(tmp_path), out)
    wanted = states(small_spec(tmp_path))
    assert all(same_bits(getattr(stage, part).state_dict(), state) for part, state in wanted.items())
    video = tmp_path / "videos"
    assert (
        run(["generate", "a red circle", "--spec", str(spec), "--weights", str(out), "--output-dir", str(video)]) == 0
    )
    assert [*video.glob("*.mp4")]


def test_every_tensor_is_accounted_for(convert, base, spec, tmp_path):
    code, said, _ = convert(base, "--spec", spec, "--output", tmp_path / "out", "--verbose")
    file = official(small_spec(tmp_path), "denoiser", "official")
    assert code == 0
    assert re.search(r"  conv_in\.weight -> conv_in\.weight \[16, 4, 3, 3\]\n", said)
    told = [line.split()[0] for line in said.splitlines() if re.match(r"  \S+ (->|=)", line)]
    assert sorted(told) == sorted(file)
    constants = [key for key in file if key.endswith("freqs")]
    assert f"{len(file) - len(constants)} tensors read, {len(constants)} constants compared, 0 left over" in said


def test_one_part_alone_is_converted_and_the_loader_says_what_is_missing(convert, base, sd, spec, tmp_path, capsys):
    first, whole = tmp_path / "first", tmp_path / "whole"
    code, said, _ = convert(base, "--spec", spec, "--output", first)
    assert code == 0
    assert "not converted: autoencoder, text_encoder" in said
    assert read_manifest(first)["modules"] == ["denoiser"]
    assert run(["generate", "a circle", "--spec", str(spec), "--weights", str(first)]) == 2
    assert "holds denoiser, but no autoencoder and no text_encoder" in capsys.readouterr().err
    parts = ["--part", f"autoencoder={sd}", "--part", f"text_encoder={sd / 'text_encoder'}"]
    assert convert(first, *parts, "--spec", spec, "--output", whole)[0] == 0
    load_stage(small_spec(tmp_path), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_of_lavies_own_file_comes_back_bit_by_bit(dtype, convert, spec, tmp_path):
    file = {key: tensor.to(dtype) for key, tensor in official(small_spec(tmp_path), "denoiser", "official").items()}
    save_file(file, tmp_path / "base.safetensors")
    assert convert(tmp_path / "base.safetensors", "--spec", spec, "--output", tmp_path / "out")[0] == 0
    for name in ("again.safetensors", "again.pt"):
        assert convert(tmp_path / "out", "--to", "official", "--output", tmp_path / name)[0] == 0
    assert same_bits(load_file(tmp_path / "again.safetensors"), file)
    assert same_bits(torch.load(tmp_path / "again.pt", weights_only=True)["ema"], file)


@pytest.mark.parametrize(
    "layouts",
    [
        {},
        {"autoencoder": "diffusers", "text_encoder": "transformers_bare"},
    ],
)
def test_a_folder_of_diffusers_comes_back_bit_by_bit(layouts, convert, spec, tmp_path):
    sd = write_diffusers(tmp_path / "sd", small_spec(tmp_path, IMAGE), layouts)
    assert convert(sd, "--spec", spec, "--set", IMAGE, "--output", tmp_path / "out")[0] == 0
    assert convert(tmp_path / "out", "--to", "diffusers", "--output", tmp_path / "again")[0] == 0
    files = sorted(path.relative_to(sd) for path in sd.rglob("*.*"))
    assert sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*")) == files
    for path in files:
        if path.suffix == ".safetensors":
            assert same_bits(load_file(tmp_path / "again" / path), load_file(sd / path))
        else:
            assert json.loads((tmp_path / "again" / path).read_text()) == json.loads((sd / path).read_text())


def test_a_single_file_comes_back_bit_by_bit_without_what_was_left_over(convert, spec, tmp_path):
    file = {key: tensor.contiguous() for key, tensor in single_file(small_spec(tmp_path, IMAGE)).items()}
    torch.save({"state_dict": file}, tmp_path / "sd.ckpt")
    code, said, _ = convert(tmp_path / "sd.ckpt", "--spec", spec, "--set", IMAGE, "--output", tmp_path / "out")
    assert code == 0
    assert "7 left over that belong to no part" in said
    assert "... and 2 more; --verbose lists them" in said
    assert convert(tmp_path / "out", "--to", "ldm", "--output", tmp_path / "again.ckpt")[0] == 0
    again = torch.load(tmp_path / "again.ckpt", weights_only=True)["state_dict"]
    parts = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    assert same_bits(again, {key: tensor for key, tensor in file.items() if key.startswith(parts)})


def test_inflating_has_to_be_asked_for(convert, sd, spec, tmp_path):
    out = tmp_path / "out"
    code, _, complaint = convert(sd, "--spec", spec, "--output", out)
    assert code == 2
    assert "those of the image network" in complaint
    assert "--inflate" in complaint
    assert not out.exists()
    code, said, _ = convert(sd, "--spec", spec, "--output", out, "--inflate")
    assert code == 0
    assert re.search(r"denoiser: .* start fresh", said)
    image = states(small_spec(tmp_path, IMAGE))["denoiser"]
    stage = load_stage(small_spec(tmp_path), out)
    state = stage.denoiser.state_dict()
    assert same_bits({key: state[key] for key in image}, image)


def test_a_video_network_is_not_inflated(convert, base, spec, tmp_path):
    code, _, complaint = convert(base, "--spec", spec, "--output", tmp_path / "out", "--inflate")
    assert code == 2
    assert "no image network to be inflated" in complaint


def test_a_video_network_does_not_become_an_image_file(convert, base, spec, tmp_path):
    convert(base, "--spec", spec, "--output", tmp_path / "out")
    code, _, complaint = convert(tmp_path / "out", "--to", "ldm", "--output", tmp_path / "sd.ckpt")
    assert code == 2
    assert "hold image networks only" in complaint
    assert not (tmp_path / "sd.ckpt").exists()


def break_key(file: dict[str, torch.Tensor]) -> str:
    del file["conv_out.bias"]
    return r"conv_out\.bias: missing"


def break_shape(file: dict[str, torch.Tensor]) -> str:
    file["conv_out.bias"] = torch.ones(5)
    return r"conv_out\.bias: shape \[5\] where the network has \[4\]"


def break_name(file: dict[str, torch.Tensor]) -> str:
    file["controlnet.weight"] = torch.ones(5)
    return r"controlnet\.weight: not part of the network"


def break_constant(file: dict[str, torch.Tensor]) -> str:
    key = next(key for key in file if key.endswith("freqs"))
    file[key] = file[key] * 2
    return "holds other values than this network uses"


def break_dtype(file: dict[str, torch.Tensor]) -> str:
    file["conv_out.bias"] = file["conv_out.bias"].to(torch.int8)
    return r"conv_out\.bias holds whole numbers"


@pytest.mark.parametrize("change", [break_key, break_shape, break_name, break_constant, break_dtype])
def test_half_a_match_is_refused_and_nothing_is_written(change, convert, sd, spec, tmp_path):
    file = official(small_spec(tmp_path), "denoiser", "official")
    cause = change(file)
    save_file(file, tmp_path / "base.safetensors")
    before = sorted(tmp_path.iterdir())
    code, _, complaint = convert(
        sd, "--part", f"denoiser={tmp_path / 'base.safetensors'}", "--spec", spec, "--output", tmp_path / "out"
    )
    assert code == 2
    assert str(tmp_path / "base.safetensors") in complaint
    assert re.search(cause, complaint)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "field", "value", "cause"),
    [
        ("unet", "attention_head_dim", 4, r"number of heads \[4, 4\], the spec \[2, 2\]"),
        ("unet", "norm_eps", 1e-6, "norm"),
        ("vae", "scaling_factor", 0.13025, "scaling_factor 0.13025, the spec 0.18215"),
        ("text_encoder", "hidden_act", "gelu", "activation gelu, the spec quick_gelu"),
        ("text_encoder", "num_attention_heads", "many", "config.json"),
    ],
)
def test_what_shapes_do_not_show_is_compared_with_the_configuration(
    name, field, value, cause, convert, sd, spec, tmp_path
):
    path = sd / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    code, _, complaint = convert(sd, "--spec", spec, "--set", IMAGE, "--output", tmp_path / "out")
    assert code == 2
    assert re.search(cause, complaint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tokens", "cause"),
    [
        (["x.pt"], "name the spec"),
        (["--spec", "{spec}"], "name at least one file"),
        (["missing.pt", "--spec", "{spec}"], "missing.pt does not exist"),
        (["--spec", "{spec}", "--part", "vae=x.pt"], "write one of denoiser=PATH"),
        (["--spec", "{spec}", "--part", "denoiser"], "write one of denoiser=PATH"),
        (["--spec", "{spec}", "--part", "denoiser=a", "--part", "denoiser=b"], "given twice"),
        (["{base}", "{sd}", "--spec", "{spec}"], "both hold one. Choose with --part denoiser=PATH"),
        (["--spec", "{spec}", "--part", "autoencoder={base}"], "holds no autoencoder; it holds denoiser"),
        (["{sd}", "--to", "official", "--spec", "{spec}"], "the folder knows its spec"),
        (["{sd}", "--to", "official"], "no weights folder of lavie"),
    ],
)
def test_what_cannot_be_done_is_told_apart(tokens, cause, convert, base, sd, spec, tmp_path):
    places = {"{spec}": str(spec), "{base}": str(base), "{sd}": str(sd)}
    for place, path in places.items():
        tokens = [token.replace(place, path) for token in tokens]
    code, _, complaint = convert(*tokens, "--output", tmp_path / "out")
    assert code == 2
    assert cause in complaint
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_unasked_and_nothing_but_weights_ever(convert, base, spec, tmp_path):
    out, other = tmp_path / "out", tmp_path / "photos"
    other.mkdir()
    (other / "cat.png").write_text("meow")
    assert convert(base, "--spec", spec, "--output", out)[0] == 0
    assert "exists already" in convert(base, "--spec", spec, "--output", out)[2]
    assert convert(base, "--spec", spec, "--output", out, "--overwrite")[0] == 0
    assert "is no weights folder of lavie" in convert(base, "--spec", spec, "--output", other, "--overwrite")[2]
    assert (other / "cat.png").read_text() == "meow"
    assert convert(out, "--to", "official", "--output", other, "--overwrite")[0] == 2
    assert "ends in .safetensors, .pt, .ckpt" in convert(out, "--to", "official", "--output", tmp_path / "x.bin")[2]
