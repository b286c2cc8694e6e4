"""What a dry run predicts is what a real run takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_cascade import small_cascade
from small_model import small_spec
from torch import Tensor

from lavie.errors import SpecError
from lavie.planning import PIXELS, Setting, dry_run
from lavie.planning.memo import Memo
from lavie.registry import installed
from lavie.specfile import load_spec, shipped
from lavie.stages import Given, LatentDiffusion, PixelVideo, StageSpec

CPU = torch.device("cpu")
# Many small frames: much memory, little work; what attention and feed-forward layers hold is a good part of it.
LONG = (
    "video={num_frames: 128, height: 32, width: 32}",
    "autoencoder.channels=[32, 32]",
    "autoencoder.decode_chunk=128",
    "denoiser.channels=[32]",
    "sampler.num_inference_steps=1",
)
# Both in one process without checks of shapes, which hold on to tensors a little longer.
CHILD = """
import gc, json, sys, torch
from pathlib import Path
from lavie.planning import Setting, dry_run
from lavie.planning.plan import LIBRARIES
from lavie.planning.process import give_memory_back, resident_bytes, trim
from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import Request, load_stage

torch.set_num_threads(1)
give_memory_back()
spec = load_spec(sys.argv[1], installed(), sys.argv[2:], "stage")
predicted = [need.usage.peak + LIBRARIES for need in dry_run(Setting(spec, torch.device("cpu"), torch.float32))]
gc.collect()
trim()
before = resident_bytes()

def highest(run):
    Path("/proc/self/clear_refs").write_text("5")
    made = run()
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return made, int(status["VmHWM"].split()[0]) * 1024 - before

video, sampling = highest(lambda: load_stage(spec, None).generate([Request("a")]))
_, pixels = highest(lambda: [None for _ in video.pictures()])
print(json.dumps([predicted, [sampling, pixels]]))
"""


@pytest.fixture(scope="module")
def memo() -> Memo:
    return Memo()


def setting(spec: StageSpec, dtype: torch.dtype = torch.float32, *, in_turn: bool = False) -> Setting:
    return Setting(spec, CPU, dtype, in_turn)


@pytest.mark.skipif(sys.platform != "linux", reason="the highest resident memory of a process")
def test_the_predicted_peaks_are_what_a_process_takes(tmp_path: Path) -> None:
    small_spec(tmp_path, *LONG)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "small.yaml"), *LONG]
    predicted, measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert measured == pytest.approx(predicted, rel=0.2)


def test_weights_count_once_however_many_stages_have_them(tmp_path: Path, memo: Memo) -> None:
    spec = small_cascade(tmp_path)
    needs = {need.name: need.weights for need in dry_run(setting(spec), memo=memo)}
    assert list(needs) == ["base", "interpolation", "upscaling", PIXELS]
    first = spec.base.build()
    assert needs["base"] == sum(tensor.numel() * 4 for tensor in [*first.parameters(), *first.buffers()])
    assert isinstance(first, LatentDiffusion)
    assert needs["interpolation"] < needs["base"] - sum(each.numel() * 4 for each in first.text_encoder.parameters())


def test_half_precision_halves_weights_and_in_turn_lowers_the_peak(tmp_path: Path, memo: Memo) -> None:
    spec = small_cascade(tmp_path)
    whole, half, turn = (
        dry_run(each, memo=memo) for each in (setting(spec), setting(spec, torch.bfloat16), setting(spec, in_turn=True))
    )
    assert [2 * need.weights for need in half] == [need.weights for need in whole]
    assert all(one.usage.peak < other.usage.peak for one, other in zip(turn, whole, strict=True))


def test_more_frames_need_more_and_windows_bound_it(tmp_path: Path) -> None:
    def peak(frames: int, *overrides: str) -> int:
        video = f"video={{num_frames: {frames}, height: 32, width: 32}}"
        fast = "autoencoder.decode_chunk=64"
        return dry_run(setting(small_spec(tmp_path, video, fast, *overrides)))[0].usage.peak

    windows = "coverage={type: windows, num_frames: 8, overlap: 2}"
    assert peak(32) > 1.7 * peak(16)
    assert peak(32, windows) < 1.2 * peak(16, windows)


def test_what_goes_in_counts_and_its_pixels_do_not_matter(tmp_path: Path) -> None:
    spec = small_cascade(tmp_path).parts()["upscaling"]
    peaks = []
    for frames in (3, 12):
        given = Given(PixelVideo(torch.full((1, 3, frames, 16, 16), float("nan")), 8.0))
        peaks.append(dry_run(setting(spec), given=given)[0].usage.peak)
    assert peaks[1] > 1.5 * peaks[0]


@pytest.mark.parametrize("name", [name for name in shipped() if name.endswith("-tiny") and "train" not in name])
def test_shipped_specs_can_be_planned(name: str, memo: Memo) -> None:
    spec = load_spec(name, installed(), kind="stage")
    assert isinstance(spec, StageSpec)
    needs = dry_run(setting(spec), memo=memo)
    assert [need.name for need in needs] == [*spec.parts(), PIXELS]
    assert all(need.usage.peak > sum(each.weights for each in needs) for need in needs)


def test_work_grows_with_the_steps_and_is_the_same_when_known_from_before(tmp_path: Path) -> None:
    memo = Memo()

    def work(steps: int) -> int:
        needs = dry_run(setting(small_spec(tmp_path, f"sampler.num_inference_steps={steps}")), memo=memo)
        return needs[0].usage.work["convolution"]

    once, four = work(1), work(4)
    assert four == pytest.approx(4 * once, rel=0.01)
    assert work(4) == four


def test_code_that_depends_on_numbers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nosy(self: object, latent: Tensor) -> Tensor:
        return latent if latent.sum() > 0 else -latent

    monkeypatch.setattr("lavie.blocks.autoencoder.AutoencoderKL.decode", nosy)
    with pytest.raises(SpecError, match="cannot be planned: some part of it depends on numbers"):
        dry_run(setting(small_spec(tmp_path)))
