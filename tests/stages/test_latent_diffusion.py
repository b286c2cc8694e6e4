"""One diffusion run: what it is asked, what it tells the network, and where its noise comes from."""

from collections.abc import Sequence

import pytest
import torch
from jaxtyping import Float
from small_parts import BASE, INTERPOLATION, UPSCALING, small_part, small_part_spec
from torch import Tensor

from lavie.errors import SpecError
from lavie.stages import Given, LatentDiffusion, PixelVideo, Request, Run

ANY_TEXT = "text_encoder=any_text"
FIRST_FRAME = (
    "source=given_frames",
    "denoiser.conditioners=[{type: concat, name: frames, channels: 5}]",
)


def pixels(num_frames: int = 3, height: int = 16, width: int = 16, batch: int = 1) -> PixelVideo:
    size = (batch, 3, num_frames, height, width)
    return PixelVideo(torch.rand(size, generator=torch.Generator().manual_seed(5)) * 2 - 1, fps=8.0)


def latents(stage: LatentDiffusion, *requests: Request) -> Tensor:
    return stage.generate(requests).latent


def texts_of(stage: LatentDiffusion, request: Request) -> list[str]:
    """Return the texts that the stage encodes for a request."""
    texts: list[str] = []
    encode = stage.text_encoder.encode

    def note(prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        texts.extend(prompts)
        return encode(prompts)

    stage.text_encoder.encode = note  # type: ignore[method-assign]
    stage.generate([request])
    return texts


def test_a_stage_without_a_source_refuses_given_frames() -> None:
    with pytest.raises(SpecError, match="given: the model starts from text alone; it has no place for given frames"):
        small_part(BASE).generate([Request("a star", given=Given(pixels()))])


@pytest.mark.parametrize(("data", "name"), [(INTERPOLATION, "interpolation"), (UPSCALING, "upscaling")])
def test_a_stage_that_makes_videos_from_videos_refuses_none(data: dict[str, object], name: str) -> None:
    with pytest.raises(SpecError, match=f"given: the stage {name} makes videos from videos; give it one"):
        small_part(data).generate([Request("a star")])


def test_a_stage_that_may_be_given_frames_makes_videos_with_and_without_them() -> None:
    stage = small_part(BASE, *FIRST_FRAME)
    free, given = latents(stage, Request("a star")), latents(stage, Request("a star", given=Given(pixels(1))))
    assert free.shape == given.shape
    assert not torch.allclose(free, given, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([pixels(batch=2)], "given: holds 2 videos; split them, one per request"),
        ([pixels(0)], r"given\.num_frames: must be greater than or equal to 1 \(got 0\)"),
        ([pixels(3), pixels(2)], "given: the requests of one batch give videos of different sizes"),
        (
            [pixels(3, 17, 16)],
            "given: makes 17×16 pixels, no multiples of the autoencoder's factor 2; resize",
        ),
    ],
)
def test_videos_that_cannot_be_started_from_are_refused(given: list[PixelVideo], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        small_part(INTERPOLATION).generate([Request("a star", given=Given(video)) for video in given])


def test_the_size_of_the_result_follows_the_given_video() -> None:
    video = small_part(UPSCALING).generate([Request("a star", given=Given(pixels(2, 6, 10)))])
    assert (video.num_frames, video.height, video.width, video.fps) == (2, 24, 40, 8.0)


@pytest.mark.parametrize(("negative", "told"), [(None, "None"), ("", ""), ("a blue star", "a blue star")])
def test_without_a_negative_prompt_it_is_the_specs_own_and_an_empty_one_is_empty(negative: str, told: str) -> None:
    stage = small_part(BASE, ANY_TEXT, "prompt.negative='None'")
    assert set(texts_of(stage, Request("a star", negative))) == {"a star", told}


def test_the_prompt_gets_its_suffix_and_the_negative_prompt_does_not() -> None:
    stage = small_part(BASE, ANY_TEXT, "prompt.suffix=', 4k.'")
    assert set(texts_of(stage, Request("a red star", "a blue star"))) == {"a red star, 4k.", "a blue star"}


def test_underscores_stand_for_spaces_before_the_suffix() -> None:
    stage = small_part(BASE, ANY_TEXT, "prompt={suffix: ', 4k.', underscores: true}")
    assert set(texts_of(stage, Request("a red star"))) == {"a_red_star, 4k.", ""}


def test_without_guidance_the_negative_prompt_is_never_read() -> None:
    assert texts_of(small_part(BASE, ANY_TEXT, "guidance=none"), Request("a star", "a circle")) == ["a star"]


@torch.inference_mode()
def test_guidance_is_the_official_one() -> None:
    """The prediction without text, and `scale` times the way from there to the one with text."""
    stage = small_part(BASE, "guidance.scale=4.0")
    run = Run(stage, [Request("a red star", "blue", seed=3)], stage.spec.shape())
    noisy, sigma = run.initial() * 2, 2.0
    alone = {
        text: Run(small_part(BASE, "guidance=none"), [Request(text)], stage.spec.shape()).denoise()(noisy, sigma)
        for text in ("a red star", "blue")
    }
    due = alone["blue"] + 4.0 * (alone["a red star"] - alone["blue"])
    torch.testing.assert_close(run.denoise()(noisy, sigma), due, rtol=0, atol=1e-5)
    assert not torch.allclose(due, alone["a red star"], atol=1e-3)


def test_what_is_made_depends_on_the_seed_and_not_on_the_batch() -> None:
    stage = small_part(INTERPOLATION)
    requests = [Request("a star", seed=seed, given=Given(pixels())) for seed in (3, 4, 3)]
    together = latents(stage, *requests)
    for index, request in enumerate(requests):
        torch.testing.assert_close(together[index], latents(stage, request)[0], rtol=0, atol=1e-5)
    assert torch.equal(together[0], together[2])
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_stages_draw_noise_of_their_own_from_one_seed() -> None:
    noise = []
    for data in (BASE, INTERPOLATION, UPSCALING):
        stage = small_part(data)
        noise.append(Run(stage, [Request("a star", seed=3)], small_part(BASE).spec.shape()).initial().flatten()[:64])
        assert stage.name == ["base", "interpolation", "upscaling"][len(noise) - 1]
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[1], noise[2])


def test_every_step_is_told_with_the_stages_name() -> None:
    stage, told = small_part(INTERPOLATION), []
    request = Request("a star", given=Given(pixels()))
    stage.generate([request], lambda name, step: told.append((name, step.index)))
    assert told == [("interpolation", 0), ("interpolation", 1)]
    assert stage.num_steps() == 2


def test_what_on_step_raises_ends_the_run() -> None:
    def stop(name: str, step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_part(BASE).generate([Request("a star")], stop)


def test_pixels_are_made_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = small_part(BASE)
    decode = stage.autoencoder.decode
    monkeypatch.setattr(stage.autoencoder, "decode", None)
    video = stage.generate([Request("a star")])
    monkeypatch.setattr(stage.autoencoder, "decode", decode)
    assert video.video().shape == (1, 3, 3, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("video.height=15", "video.height: 15 is no multiple of the autoencoder's factor 2"),
        ("source=null", "denoiser.conditioners: the network reads 'frames' of 4 channels; the source gives nothing"),
        ("source.mask=true", "the network reads 'frames' of 4 channels; the source gives 'frames' of 5"),
        (
            "denoiser.conditioners=[{type: concat, name: low_res, channels: 4}]",
            "the network reads 'low_res' of 4 channels; the source gives 'frames' of 4",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named_when_the_stage_is_built(change: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        small_part_spec(INTERPOLATION, change).build()
