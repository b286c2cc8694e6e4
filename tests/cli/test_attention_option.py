"""`--attention` and LAVIE_ATTENTION: the kernel that computes attention, refused before anything is loaded."""

from pathlib import Path

import pytest
from small_model import SPEC, small_weights
from torch import Tensor

from lavie.blocks.kernels import KERNELS, VARIABLE, attention_in_use, plain
from lavie.cli.app import run
from lavie.generation.model import Model
from lavie.generation.record import read_record


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows when the kernel named `counting` is used."""
    counted: list[int] = []

    def counting(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        counted.append(len(query))
        return plain(query, key, value, bias)

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(KERNELS, "counting", counting)
    return counted


def generate(folder: Path, *tokens: str) -> int:
    where = ["--weights", str(folder / "weights"), "--output-dir", str(folder / "out"), "--device", "cpu"]
    return run(["generate", "a red circle", *where, *tokens])


def test_the_chosen_kernel_makes_the_video_and_stands_in_its_record(tmp_path, capsys, calls):
    small_weights(tmp_path)
    assert generate(tmp_path, "--attention", "counting") == 0
    path = Path(capsys.readouterr().out.splitlines()[0])
    assert len(calls) > 2
    assert read_record(path).environment["attention"] == "counting"
    assert attention_in_use() == "sdpa"


def test_the_environment_chooses_unless_the_option_does(tmp_path, monkeypatch, calls):
    small_weights(tmp_path)
    monkeypatch.setenv(VARIABLE, "counting")
    assert generate(tmp_path, "--attention", "math") == 0
    assert len(calls) <= 3  # the trial on the device at most
    assert generate(tmp_path, "--overwrite") == 0
    assert len(calls) > 3


@pytest.mark.parametrize(
    ("option", "variable", "reason"),
    [
        ("xformer", "", "--attention: unknown kernel 'xformer'. Did you mean 'xformers'?"),
        ("wrong", "", "--attention: wrong does not work on cpu in float32"),
        ("", "wrong", f"{VARIABLE}: wrong does not work on cpu in float32"),
        ("", "flash", f"{VARIABLE}: unknown kernel 'flash'. Known: sdpa, math, xformers"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_loaded(tmp_path, capsys, monkeypatch, option, variable, reason):
    small_weights(tmp_path)
    monkeypatch.setenv(VARIABLE, variable)
    monkeypatch.setitem(KERNELS, "wrong", lambda query, key, value, bias: 2 * query)
    monkeypatch.setattr(Model, "load", lambda model: pytest.fail("weights are loaded"))
    assert generate(tmp_path, *(["--attention", option] if option else [])) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_refuses_it_too(tmp_path, capsys, monkeypatch):
    (tmp_path / "small.yaml").write_text(SPEC)
    phase = "{type: autoencoder, name: first, num_steps: 1, data: {type: shapes, num_frames: 1, height: 16, width: 16}}"
    (tmp_path / "recipe.yaml").write_text(f"type: train\nmodel: {{extends: small.yaml}}\nphases: [{phase}]\n")
    monkeypatch.setenv(VARIABLE, "flash")
    words = ["train", str(tmp_path / "recipe.yaml"), "--output-dir", str(tmp_path / "run"), "--device", "cpu"]
    assert run(words) == 2
    assert f"{VARIABLE}: unknown kernel 'flash'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
