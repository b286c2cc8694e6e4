"""Runs that meet the end of memory go on with less at a time, to the same video."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_model import small_spec
from torch import Tensor

import lavie
from lavie.blocks import autoencoder
from lavie.blocks.image_layers import ImageNetwork
from lavie.errors import OutOfMemoryError
from lavie.generation.ladder import Ladder, SteadyVideo
from lavie.generation.record import read_record
from lavie.stages import LatentDiffusion, LatentVideo, Request, load_stage
from lavie.weights.stored import save_stage

SHORT = RuntimeError("DefaultCPUAllocator: can't allocate memory")
LONG = ("video={num_frames: 6, height: 80, width: 80}", "autoencoder.decode_chunk=6")


@pytest.fixture
def short_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leave autoencoders memory for so many positions of a latent."""
    run = autoencoder.AutoencoderKL._run

    def set_most(most: int) -> None:
        def short_run(self: autoencoder.AutoencoderKL, network: ImageNetwork, images: Tensor) -> Tensor:
            if len(images) * min(images.shape[2] * images.shape[3], (self.tile or 10**6) ** 2 // 4) > most:
                raise SHORT
            return run(self, network, images)

        monkeypatch.setattr(autoencoder.AutoencoderKL, "_run", short_run)

    return set_most


@pytest.mark.parametrize(
    ("most", "rungs"),
    [
        (10**9, []),
        (4 * 1600, ["4 at a time"]),
        (1600, ["4 at a time", "1 at a time"]),
        (1025, ["4 at a time", "1 at a time", "tiles of 256×256 features", "tiles of 64×64 features"]),
    ],
)
def test_decoding_goes_on_with_less_at_a_time_to_the_same_pixels(
    tmp_path: Path, short_of: Callable[[int], None], most: int, rungs: list[str]
) -> None:
    stage = small_spec(tmp_path, *LONG).build().eval()
    video = LatentVideo(torch.randn(1, 4, 6, 40, 40), stage.autoencoder, 8.0)
    whole = video.video()
    short_of(most)
    ladder = Ladder(stage, "cpu")
    torch.testing.assert_close(SteadyVideo(video, ladder, "").video(), whole, rtol=0, atol=1e-5)
    assert [line.split(" decoded ")[1].removeprefix("in ") for line in ladder.taken] == rungs
    assert all(line.startswith("out of memory while decoding: ") for line in ladder.taken)


def test_what_was_given_up_is_told_and_recorded_beside_the_video(
    tmp_path: Path, short_of: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    spec = small_spec(tmp_path, *LONG)
    save_stage(spec.build().networks(), spec, tmp_path / "weights")
    short_of(1600)
    path = lavie.generate("a star", spec=spec, weights=tmp_path / "weights", device="cpu").save(tmp_path / "video.mp4")
    memory = read_record(path).memory
    assert [line.partition(": ")[2][:8] for line in memory] == ["networks", "frames a", "frames a"]
    assert [f"note: {line}" for line in memory] == caplog.messages
    path.with_name("video.mp4.json").unlink()
    assert read_record(path).memory == ()


def test_the_last_rung_is_an_answer(tmp_path: Path) -> None:
    notes: list[str] = []
    ladder = Ladder(small_spec(tmp_path).build(), "cpu", notes.append)

    def fail() -> None:
        raise SHORT

    with pytest.raises(OutOfMemoryError, match=r"^out of memory on cpu while decoding: wait$"):
        ladder.climb_down("decoding", "wait", fail)
    assert notes == [f"note: {line}" for line in ladder.taken]
    assert len(notes) == 2  # two sizes of tiles; frames are decoded one at a time already
    with pytest.raises(ZeroDivisionError):
        ladder.climb_down("decoding", "wait", lambda: 1 // 0)


def test_sampling_releases_what_is_not_at_work_and_makes_the_same_video(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    save_stage(spec.build().networks(), spec, tmp_path / "weights")
    stage = load_stage(spec, tmp_path / "weights")
    assert isinstance(stage, LatentDiffusion)
    whole, ladder = stage.generate([Request("a star")]).video(), Ladder(stage, "cpu")

    def sample() -> Tensor:
        if not next(stage.text_encoder.parameters()).is_meta:
            raise SHORT
        return stage.generate([Request("a star")]).video()

    assert torch.equal(ladder.climb_down("sampling", "", sample, codes=False), whole)
    assert len(ladder.taken) == 1
    assert all(each.is_meta for each in stage.denoiser.parameters())


def test_sampling_that_codes_nothing_takes_no_smaller_pieces(tmp_path: Path) -> None:
    stage = small_spec(tmp_path).build()

    def fail() -> None:
        raise MemoryError

    with pytest.raises(OutOfMemoryError):
        Ladder(stage, "cpu").climb_down("sampling", "", fail, codes=False)
    assert stage.autoencoder.tile is None  # type: ignore[union-attr]


CHILD = """
import json, resource, sys, torch
from lavie.generation.ladder import Ladder, SteadyVideo
from lavie.planning.process import give_memory_back, trim
from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import LatentVideo, load_stage

torch.set_num_threads(1)
give_memory_back()
stage = load_stage(load_spec(sys.argv[1], installed(), ["autoencoder.decode_chunk=24"], "stage"), None)
video = LatentVideo(torch.randn(1, 4, 24, 128, 128), stage.autoencoder, 8.0)
whole = video.frames(0, 24)
trim()
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 120 * 2**20, resource.RLIM_INFINITY))
ladder = Ladder(stage, "cpu")
part = SteadyVideo(video, ladder, "").frames(0, 24)
print(json.dumps({"taken": ladder.taken, "difference": (part - whole).abs().max().item()}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_a_process_that_may_not_have_more_memory_decodes_in_smaller_pieces(tmp_path: Path) -> None:
    small_spec(tmp_path)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "small.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert "decoded 4 at a time" in answer["taken"][1]
    assert answer["difference"] < 1e-5
