"""`lavie check`."""

from pathlib import Path

import pytest

from lavie.cli.app import run
from lavie.document import write
from lavie.specfile import load_document, shipped


def test_shipped_specs_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", *shipped()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == shipped()
    assert all(": ok (" in line for line in lines)


def test_the_base_network_has_the_papers_size(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(write(load_document("base")["denoiser"]), encoding="utf-8")
    assert run(["check", str(path)]) == 0
    assert f"{path}: ok (denoiser unet, 909,124,100 parameters, hash " in capsys.readouterr().out


def test_each_fault_has_a_line_and_the_exit_code_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("extends: base-tiny\nguidance.scale: high\nvideo: {num_frame: 3, width: 0}\n", encoding="utf-8")
    assert run(["check", str(path), "base-tiny"]) == 2
    captured = capsys.readouterr()
    assert sorted(line.split(": ")[1] for line in captured.err.splitlines()) == [
        "guidance.scale",
        "video.num_frame",
        "video.width",
    ]
    assert captured.out.startswith("base-tiny: ok")


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("denoiser.transformer.num_heads=7", "denoiser.transformer.spatial: "),
        ("denoiser.norm.groups=7", "groups"),
        ("denoiser.transformer.temporal.position.dim=400", "denoiser.transformer.temporal.position: rope rotates 400"),
        ("video.height=63", "video.height: 63 is no multiple"),
    ],
)
def test_what_only_building_shows_is_told_by_its_path_too(
    override: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "base-tiny", "--set", override]) == 2
    error = capsys.readouterr().err
    assert error.startswith("base-tiny: ")
    assert fault in error
    assert "Traceback" not in error


def test_settings_apply_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "sampler=ddim", "--set", "sampler.num_inference_steps=3"]
    assert run(["check", "base", *changes, "--set", "denoiser.transformer.temporal=none"]) == 0
    assert run(["check", "base", *changes, "--set", "sampler.nothing=1"]) == 2


def test_a_kind_can_be_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    path.write_text("type: none\n", encoding="utf-8")
    assert run(["check", str(path)]) == 2
    assert run(["check", str(path), "--kind", "temporal"]) == 0
    assert ": ok (temporal none, hash " in capsys.readouterr().out


def test_no_spec_at_all_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check"]) == 2
    assert "name at least one spec, such as base-tiny" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a: [1,\n", "a: &x 1\n", "a: 1\na: 2\n", "extends: bas-tiny\n"])
def test_faults_of_the_text_have_their_line(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"# a spec\n{text}", encoding="utf-8")
    assert run(["check", str(path)]) == 2
    assert capsys.readouterr().err.startswith((f"{path}:2: ", f"{path}:3: "))


def test_an_override_that_is_none_is_told_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "base-tiny", "--set", "guidance.scale"]) == 2
    assert capsys.readouterr().err == "--set 'guidance.scale': an override reads path=value\n"
