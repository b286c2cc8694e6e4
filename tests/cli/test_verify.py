"""`lavie verify`."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavie.blocks.kernels import KERNELS, plain
from lavie.cli.app import run

GOLDEN = Path(__file__).parents[1] / "golden"
PASSING = ["clip_gelu", "sched_ddim_lavie"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in PASSING:
        shutil.copy(GOLDEN / f"{name}.safetensors", tmp_path)
    return tmp_path


def test_a_folder_gives_a_row_for_each_file_and_a_summary_last(folder, capsys):
    assert run(["verify", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == PASSING
    assert all(line.endswith("pass") for line in lines[2:-1])
    assert lines[-1] == "2 files: 2 pass, 0 fail, 0 unsupported, 0 error"


def test_a_corrupt_file_is_a_row_and_the_others_still_run(folder, capsys):
    (folder / "broken.safetensors").write_bytes(b"\x00" * 100)
    assert run(["verify", str(folder)]) == 1
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("broken"))
    assert "error: cannot be read" in row
    assert "Traceback" not in out
    assert out.splitlines()[-1] == "3 files: 2 pass, 0 fail, 0 unsupported, 1 error"


def test_json_is_one_document(folder, capsys):
    assert run(["verify", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["summary"] == {"pass": 2, "fail": 0, "unsupported": 0, "error": 0}
    assert [row["name"] for row in document["results"]] == PASSING
    assert document["results"][0]["relative_error"] < 1e-4
    assert document["conditions"] == "networks on cpu in float32; all else in float32 on the CPU"


def test_half_precision_says_that_its_bounds_are_looser(folder, capsys):
    assert run(["verify", str(folder / "clip_gelu.safetensors"), "--dtype", "bfloat16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "within 5% (relative L2)" in lines[0]
    assert "5e-02 L2" in lines[2]


def test_another_attention_kernel_is_used_and_named(folder, capsys, monkeypatch):
    calls: list[int] = []

    def counting(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        calls.append(len(query))
        return plain(query, key, value, bias)

    monkeypatch.setitem(KERNELS, "counting", counting)
    assert run(["verify", str(folder), "--attention", "counting"]) == 0
    assert calls
    assert "networks on cpu in float32, attention by counting; all else" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "name at least one file"),
        (["{folder}/nowhere"], "no such file or folder"),
        (["{folder}/empty"], "no .safetensors file in this folder"),
        (["{folder}", "--dtype", "float8"], "dtype"),
        (["{folder}", "--device", "abacus"], "device"),
        (["{folder}", "--attention", "flash"], "unknown kernel 'flash'. Known: sdpa, math, xformers"),
    ],
)
def test_bad_usage_is_told_in_a_line(folder, capsys, words, reason):
    (folder / "empty").mkdir()
    assert run(["verify", *(word.format(folder=folder) for word in words)]) == 2
    captured = capsys.readouterr()
    assert reason in captured.err
    assert captured.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_device_is_bad_usage(folder, capsys):
    assert run(["verify", str(folder), "--device", "cuda"]) == 2
    assert "sees no CUDA device here. Use cpu" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recorded_numbers_are_reproduced_on_a_gpu(dtype):
    assert run(["verify", str(GOLDEN), "--device", "cuda", "--dtype", dtype]) == 0
