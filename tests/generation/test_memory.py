"""What certainly does not fit is refused, and what turns out not to is told in one line."""

from pathlib import Path

import pytest
import torch
from small_cascade import small_cascade
from small_model import small_spec

from lavie.errors import OutOfMemoryError, SpecError
from lavie.generation.memory import answering, check_memory, decoding_remedy, is_out_of_memory, sampling_remedy
from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import StageSpec, VideoShape

GIB = 2**30


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Holds the bytes of memory that this machine seems to have."""
    present = {"bytes": 4 * GIB}
    sizes = {"SC_PAGE_SIZE": lambda: 1, "SC_PHYS_PAGES": lambda: present["bytes"]}
    monkeypatch.setattr("os.sysconf", lambda name: sizes[name]())
    return present


def shipped(name: str) -> StageSpec:
    spec = load_spec(name, installed(), (), "stage")
    assert isinstance(spec, StageSpec)
    return spec


def test_a_long_large_video_needs_no_memory_for_all_its_pixels(memory: dict[str, int]) -> None:
    memory["bytes"] = GIB  # where 61 frames of 1280×2048 are 1.8 GiB of pixels
    check_memory(shipped("cascade"))


def test_latents_and_a_chunk_of_pixels_are_counted(tmp_path: Path, memory: dict[str, int]) -> None:
    spec = small_spec(tmp_path, "video={num_frames: 64, height: 1024, width: 1024}")
    latent, pixels = 64 * 4 * 512**2 * 4, 1024**2 * 3 * (4 * 9 + 1)
    memory["bytes"] = latent + max(2 * latent, pixels)
    check_memory(spec)
    memory["bytes"] -= 1
    with pytest.raises(SpecError, match=r"^video: 64 frames of 1024×1024 need more than 1 GiB .* has 1 GiB of memory"):
        check_memory(spec)


def test_enlarging_counts_one_frame(tmp_path: Path, memory: dict[str, int]) -> None:
    spec = small_spec(tmp_path, "video={num_frames: 1, height: 1024, width: 1024}")
    check_memory(spec, scale=16)
    with pytest.raises(SpecError, match="1 frames of 1024×1024 need more than 12 GiB"):
        check_memory(spec, scale=64)


def test_the_stage_that_does_not_fit_is_named_with_the_place_to_change(tmp_path: Path, memory: dict[str, int]) -> None:
    spec = small_cascade(tmp_path, "base.video={num_frames: 512, height: 512, width: 512}")
    with pytest.raises(SpecError, match=r"^base\.video: 1023 frames of 1024×1024 in the stage upscaling need more"):
        check_memory(spec)


def test_a_given_video_counts(tmp_path: Path, memory: dict[str, int]) -> None:
    spec = small_spec(tmp_path)
    check_memory(spec, VideoShape(num_frames=16, height=64, width=64))
    with pytest.raises(SpecError, match="need more than 12 GiB"):
        check_memory(spec, VideoShape(num_frames=4096, height=512, width=512))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_want_of_memory_is_recognised_and_answered(error: Exception) -> None:
    assert is_out_of_memory(error)
    with (
        pytest.raises(OutOfMemoryError, match=r"^out of memory on cpu while dreaming: sleep$"),
        answering("cpu", "dreaming", "sleep"),
    ):
        raise error


def test_other_errors_and_answers_already_given_pass() -> None:
    for error in (RuntimeError("shapes cannot be multiplied"), ValueError("memory"), OutOfMemoryError("x")):
        with pytest.raises(type(error), match=str(error)), answering("cpu", "dreaming", "sleep"):
            raise error


def test_remedies_name_settings_that_the_spec_has(tmp_path: Path) -> None:
    single, cascade = small_spec(tmp_path), small_cascade(tmp_path)
    assert sampling_remedy(single, "base").endswith("--set coverage=windows")
    assert sampling_remedy(cascade, "upscaling").endswith("--set upscaling.coverage=windows")
    assert decoding_remedy(single).endswith("--set autoencoder.tile=256")
    assert decoding_remedy(cascade).endswith("--set upscaling.autoencoder.tile=256")
    small_spec(tmp_path, "coverage=windows", "autoencoder.tile=256")
    small_cascade(tmp_path, "upscaling.coverage=windows", "upscaling.autoencoder.tile=256")
