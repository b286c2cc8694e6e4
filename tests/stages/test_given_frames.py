"""Given frames in the input layer: which frame sees what, and what cannot be given."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from small_runs import GIVEN, latent_of, small_stage
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder, AutoencoderKLSpec
from lavie.errors import SpecError
from lavie.samplers.noise import NoiseSource
from lavie.stages import Given, PixelVideo, Request, VideoShape
from lavie.stages.given_frames import GivenFrames, GivenFramesSpec

GOLDEN = Path(__file__).parents[1] / "golden" / "misc_tables.safetensors"
INTERPOLATION = GivenFramesSpec(every=4, fill="nearest", mask=False, patterns=("all",))
with torch.random.fork_rng():
    torch.manual_seed(0)
    TINY = AutoencoderKLSpec(channels=(4, 4), num_res_blocks=1, norm_groups=2, attention=False).build().eval()
NOISE = NoiseSource(3)


class Grey(Autoencoder):
    """Latents are the mean of the colours, so that a latent tells which frame it is of."""

    latent_channels, factor, scaling_factor = 1, 1, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return video.mean(dim=1, keepdim=True), torch.zeros_like(video[:, :1])

    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.moments(video)[0] * self.weight

    def decode(self, latent: Tensor) -> Tensor:
        return latent.expand(-1, 3, -1, -1, -1)


def shape(num_frames: int) -> VideoShape:
    return VideoShape(num_frames=num_frames, height=4, width=4)


def numbered(count: int) -> PixelVideo:
    """Return a video whose frame i has the brightness (i + 1) / 100."""
    levels = torch.arange(1, count + 1) / 100
    return PixelVideo(levels[None, None, :, None, None].expand(1, 3, count, 4, 4), fps=8.0)


def seen(
    spec: GivenFramesSpec, places: tuple[int, ...] | None, count: int, num_frames: int
) -> tuple[list[int], Tensor]:
    """Return which given frame each frame sees, -1 for none, and the mask or nothing."""
    source = spec.build()
    frames = source.inputs(Given(numbered(count), places), shape(num_frames), Grey(), NOISE)["frames"]
    numbers = (frames[0, 0, :, 0, 0] * 100).round().int() - 1
    return numbers.tolist(), frames[0, 1:, :, 0, 0]


def test_with_every_fourth_frame_given_a_frame_sees_key_p_plus_1_over_4() -> None:
    found, mask = seen(INTERPOLATION, None, 16, 61)
    assert found == [(p + 1) // 4 for p in range(61)]
    assert len(mask) == 0


def test_the_release_lays_its_keys_out_alike() -> None:
    with safe_open(GOLDEN, "pt") as file:
        recorded = file.get_tensor("interp_cond_frame_source").tolist()
    found, _ = seen(INTERPOLATION, None, 16, 61)
    assert [4 * key for key in found] == recorded


@given(st.sets(st.integers(0, 20), min_size=1), st.integers(21, 24))
def test_a_frame_sees_the_nearest_given_one_and_the_earlier_of_two(places: set[int], num_frames: int) -> None:
    found, _ = seen(GivenFramesSpec(fill="nearest", mask=False), tuple(sorted(places)), len(places), num_frames)
    for frame, index in enumerate(found):
        chosen = sorted(places)[index]
        assert chosen == min(places, key=lambda place: (abs(place - frame), place))


@given(st.sets(st.integers(0, 8)))
def test_with_zeros_a_frame_sees_itself_or_nothing_and_the_mask_says_which(places: set[int]) -> None:
    at = tuple(sorted(places))
    if not at:
        nothing = GivenFramesSpec().build().inputs(None, shape(9), Grey(), NOISE)["frames"]
        assert nothing.shape == (1, 2, 9, 4, 4)
        assert not nothing.any()
        return
    found, mask = seen(GivenFramesSpec(), at, len(at), 9)
    assert found == [at.index(frame) if frame in places else -1 for frame in range(9)]
    assert mask.tolist() == [[float(frame in places) for frame in range(9)]]


def test_without_places_frames_stand_at_the_beginning_or_every_so_many() -> None:
    assert seen(GivenFramesSpec(), None, 2, 5)[0] == [0, 1, -1, -1, -1]
    assert seen(GivenFramesSpec(every=3), None, 2, 5)[0] == [0, -1, -1, 1, -1]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ((0, 5), "frame 5 is given, but the video has frames 0 to 4; ask for more frames"),
        ((-1, 2), "frame -1 is given, but the video has frames 0 to 4$"),
        ((2, 2), r"need 2 different places in order, got \[2, 2\]"),
        ((3, 1), r"need 2 different places in order, got \[3, 1\]"),
        ((1,), r"need 2 different places in order, got \[1\]"),
        ((), r"need 2 different places in order, got \[\]"),
    ],
)
def test_places_outside_the_video_or_out_of_order_are_refused(places: tuple[int, ...], message: str) -> None:
    with pytest.raises(SpecError, match=f"given.places: {message}"):
        seen(GivenFramesSpec(), places, 2, 5)


def test_frames_of_another_size_are_refused() -> None:
    large = PixelVideo(torch.zeros(1, 3, 1, 6, 4), 8.0)
    with pytest.raises(SpecError, match="given: frames of 6×4 where the stage makes 4×4; resize them"):
        GivenFramesSpec().build().inputs(Given(large), shape(5), TINY, NOISE)


def test_putting_frames_between_makes_as_many_as_that_gives_at_the_given_size() -> None:
    own = VideoShape(num_frames=61, height=320, width=512, fps=24)
    sixteen = VideoShape(num_frames=16, height=64, width=96, fps=8)
    assert INTERPOLATION.shape(sixteen, own) == VideoShape(num_frames=61, height=64, width=96, fps=24)
    assert GivenFramesSpec().shape(sixteen, own) == own


PLACES = {
    "none": [set()],
    "first": [{0}],
    "first_and_last": [{0, 8}],
    "beginning": [set(range(count)) for count in range(1, 9)],
    "all": [set(range(9))],
}


@pytest.mark.parametrize("pattern", PLACES)
def test_training_shows_each_pattern_in_all_its_forms(pattern: str) -> None:
    source, latent = GivenFramesSpec(patterns=(pattern,)).build(), torch.randn(200, 1, 9, 2, 2)
    frames = source.examples(latent.expand(-1, 3, -1, -1, -1), latent, torch.Generator().manual_seed(0))["frames"]
    mask = frames[:, 1:].expand_as(latent)
    assert torch.equal(frames[:, :1], latent * mask)
    found = {frozenset(each[0, :, 0, 0].nonzero().flatten().tolist()) for each in mask}
    assert found == {frozenset(places) for places in PLACES[pattern]}


def test_training_shows_patterns_as_often_as_they_are_listed() -> None:
    source, latent = GivenFramesSpec(patterns=("none", "first", "first")).build(), torch.ones(3000, 1, 4, 1, 1)
    frames = source.examples(latent.expand(-1, 3, -1, -1, -1), latent, torch.Generator().manual_seed(0))["frames"]
    assert float(frames[:, 1, 0].mean()) == pytest.approx(2 / 3, abs=0.03)


@torch.inference_mode()
def test_training_shows_interpolation_what_it_is_given_later() -> None:
    source, video = INTERPOLATION.build(), torch.rand(1, 3, 9, 4, 4) * 2 - 1
    shown = source.examples(video, TINY.encode(video), torch.Generator())["frames"]
    (keys,) = source.given(video, fps=24.0)
    assert (keys.places, keys.shape.fps) == ((0, 4, 8), 6.0)
    torch.testing.assert_close(source.inputs(keys, shape(9), TINY, NOISE)["frames"], shown, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_a_posterior_draw_depends_on_the_seed_and_the_mode_on_none() -> None:
    keys = Given(PixelVideo(torch.rand(1, 3, 3, 4, 4), 8.0))

    def frames(posterior: str, seed: int) -> Tensor:
        source: GivenFrames = INTERPOLATION.model_copy(update={"posterior": posterior}).build()
        return source.inputs(keys, shape(9), TINY, NoiseSource(seed, source.stage))["frames"]

    assert torch.equal(frames("mode", 1), frames("mode", 2))
    assert torch.equal(frames("sample", 1), frames("sample", 1))
    assert not torch.equal(frames("sample", 1), frames("sample", 2))
    assert not torch.equal(frames("sample", 1), frames("mode", 1))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m", "heun"])
def test_given_frames_that_replace_come_out_as_they_went_in(tmp_path: Path, sampler: str) -> None:
    both = PixelVideo(torch.rand(1, 3, 2, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1, 8.0)
    request = Request("a star", given=Given(both, (0, 2)))
    sampled = f"sampler={{type: {sampler}, num_inference_steps: 3}}"
    stage = small_stage(tmp_path, *GIVEN, sampled, "source.replace=true")
    made = latent_of(stage, request)
    with torch.inference_mode():
        encoded = both.encode(stage.autoencoder)
    assert torch.equal(made[:, :, [0, 2]], encoded)
    free = latent_of(small_stage(tmp_path, *GIVEN, sampled), request)
    assert not torch.allclose(free[:, :, [0, 2]], encoded, atol=1e-2)
    assert not torch.allclose(free[:, :, 1], made[:, :, 1], atol=1e-4), "the frame between does not see them"


def test_without_given_frames_nothing_is_replaced(tmp_path: Path) -> None:
    free, made = (latent_of(small_stage(tmp_path, *GIVEN, f"source.replace={flag}")) for flag in ("false", "true"))
    assert torch.equal(free, made)


def test_without_a_mask_nothing_can_be_replaced() -> None:
    with pytest.raises(ValueError, match="only a mask tells which frames are given"):
        GivenFramesSpec(mask=False, replace=True)
