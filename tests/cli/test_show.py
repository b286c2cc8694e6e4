"""`lavie show`."""

from pathlib import Path

import pytest

import lavie.builtin
from lavie.cli.app import run
from lavie.registry import Registry
from lavie.specfile import load_spec, shipped

REGISTRY = Registry(lavie.builtin)


def shown(capsys: pytest.CaptureFixture[str], *tokens: str) -> str:
    assert run(["show", *tokens]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", shipped())
def test_the_resolved_yaml_loads_to_the_same_spec(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(shown(capsys, name, "--yaml"), encoding="utf-8")
    assert load_spec(path, REGISTRY) == load_spec(name, REGISTRY)


def test_the_tree_names_parts_counts_and_packages(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "base", "--depth", "0")
    lines = {line.strip("│├└─ ").split(":")[0]: line for line in out.splitlines()}
    assert "909,124,100 parameters" in lines["denoiser"]
    assert "×16, at 320, 640, 1280 channels" in lines["temporal"]
    assert "lavie" in lines["temporal"]
    assert "hash " in out.splitlines()[0]


def test_the_modules_are_drawn_with_the_shapes_they_return(capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_spec("base-tiny", REGISTRY).model_dump()
    frames, height = spec["video"]["num_frames"], spec["video"]["height"]
    out = shown(capsys, "base-tiny")
    assert "UNet3D" in out
    assert f"1×{spec['denoiser']['out_channels']}×{frames}×" in out
    assert f"{frames}×3×{height}×{spec['video']['width']}" in out


def test_settings_show(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "base-tiny", "--depth", "0", "--set", "denoiser.transformer.temporal=none")
    assert "temporal: none" in out


def test_output_to_a_file_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in shown(capsys, "base-tiny")


def test_a_bad_spec_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "base-tiny", "--set", "denoiser.transformer.num_heads=7"]) == 2
    assert "denoiser.transformer.spatial" in capsys.readouterr().err
