"""The cascade: what each stage gets from the one before, and what comes out in the end."""

from functools import cache
from pathlib import Path

import pytest
import torch
from small_parts import part_of, small_cascade, small_cascade_spec
from torch import Tensor

import lavie.builtin
from lavie.errors import SpecError
from lavie.registry import Registry
from lavie.spec import dump
from lavie.specfile import load_spec
from lavie.stages import CascadeSpec, Given, LatentVideo, PixelVideo, Request, VideoShape
from lavie.video import read_video, to_video, write_video

REGISTRY = Registry(lavie.builtin)
REQUEST = Request("a red star", seed=3)


@cache
def shipped(name: str, *overrides: str) -> CascadeSpec:
    spec = load_spec(name, REGISTRY, overrides)
    assert isinstance(spec, CascadeSpec)
    return spec


def latent(video: object) -> Tensor:
    assert isinstance(video, LatentVideo)
    return video.latent


def test_sixteen_frames_become_sixty_one_and_each_side_four_times_as_long() -> None:
    spec = shipped("cascade")
    base, between, large = spec.parts().values()
    assert base.shape() == VideoShape(num_frames=16, height=320, width=512, fps=8)
    assert between.shape(base.shape()) == VideoShape(num_frames=61, height=320, width=512, fps=24)
    assert spec.shape() == VideoShape(num_frames=61, height=1280, width=2048, fps=24)
    assert large.shape(base.shape()) == VideoShape(num_frames=16, height=1280, width=2048, fps=8)


@pytest.mark.parametrize(
    ("dropped", "shape"),
    [
        (["interpolation"], VideoShape(num_frames=16, height=1280, width=2048, fps=8)),
        (["upscaling"], VideoShape(num_frames=61, height=320, width=512, fps=24)),
        (["interpolation", "upscaling"], VideoShape(num_frames=16, height=320, width=512, fps=8)),
    ],
)
def test_null_drops_a_stage(dropped: list[str], shape: VideoShape) -> None:
    spec = shipped("cascade", *(f"{name}=null" for name in dropped))
    assert [name for name in ("base", "interpolation", "upscaling") if name not in dropped] == [*spec.parts()]
    assert spec.shape() == shape


@pytest.mark.parametrize("overrides", [(), ("interpolation=null",), ("upscaling=null",)])
def test_what_comes_out_is_as_the_spec_says(overrides: tuple[str, ...]) -> None:
    cascade, told = small_cascade(*overrides), []
    video = cascade.generate([REQUEST, Request("a star", seed=4)], lambda name, step: told.append(name))
    shape = small_cascade_spec(*overrides).shape()
    assert (video.num_frames, video.height, video.width, video.fps) == tuple(shape.model_dump().values())
    assert video.video().shape == (2, 3, shape.num_frames, shape.height, shape.width)
    assert told == [name for name in cascade.parts() for _ in range(2)]
    assert len(told) == cascade.num_steps()


def test_each_video_is_the_one_that_it_would_be_alone() -> None:
    cascade, requests = small_cascade(), [REQUEST, Request("a blue circle", seed=4)]
    together = latent(cascade.generate(requests))
    for index, request in enumerate(requests):
        alone = latent(cascade.generate([request]))
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_no_pixels_are_made_between_stages_with_one_autoencoder(monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = small_cascade("upscaling=null")
    base, between = part_of(cascade, "base"), part_of(cascade, "interpolation")
    for each in (base, between):
        monkeypatch.setattr(each.autoencoder, "decode", None)
        monkeypatch.setattr(each.autoencoder, "encode", None)
    handed, inputs = [], between.source.inputs  # type: ignore[union-attr]

    def note(given: Given, *rest: object) -> object:
        handed.append(inputs(given, *rest))  # type: ignore[arg-type]
        return handed[-1]

    monkeypatch.setattr(between.source, "inputs", note)
    cascade.generate([REQUEST])
    keys = latent(base.generate([REQUEST]))
    assert torch.equal(handed[0]["frames"], keys[:, :, [0, 0, 0, 1, 1, 1, 1, 2, 2]])


def test_stages_with_other_autoencoders_hand_pixels_over() -> None:
    cascade = small_cascade("upscaling=null")
    base, between = part_of(cascade, "base"), part_of(cascade, "interpolation")
    with torch.no_grad():
        between.autoencoder.quant_conv.bias += 0.3  # type: ignore[union-attr, operator]
    pixels = PixelVideo(base.generate([REQUEST]).video(), 8.0)
    due = between.generate([Request("a red star", seed=3, given=Given(pixels))])
    torch.testing.assert_close(latent(cascade.generate([REQUEST])), latent(due), rtol=0, atol=1e-5)


def test_super_resolution_gets_the_pixels_of_the_video() -> None:
    cascade = small_cascade("interpolation=null")
    low = part_of(cascade, "base").generate([REQUEST]).video()
    due = part_of(cascade, "upscaling").generate([Request("a red star", seed=3, given=Given(PixelVideo(low, 8.0)))])
    assert torch.equal(latent(cascade.generate([REQUEST])), latent(due))


def test_handing_over_mp4_is_writing_a_file_and_reading_it(tmp_path: Path) -> None:
    cascade = small_cascade("upscaling=null", "handover=mp4")
    base, between = part_of(cascade, "base"), part_of(cascade, "interpolation")
    write_video(tmp_path / "a.mp4", base.generate([REQUEST]).pictures(), 8.0)
    read = PixelVideo(to_video(read_video(tmp_path / "a.mp4").frames)[None], 8.0)
    due = between.generate([Request("a red star", seed=3, given=Given(read))])
    found = cascade.generate([REQUEST])
    assert torch.equal(latent(found), latent(due))
    assert not torch.allclose(latent(found), latent(small_cascade("upscaling=null").generate([REQUEST])), atol=1e-3)


def test_a_negative_prompt_is_the_first_stages_and_a_later_stage_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cascade = small_cascade()
    texts: dict[str, set[str]] = {}
    for name in cascade.parts():
        encoder, told = part_of(cascade, name).text_encoder, texts.setdefault(name, set())
        encode = encoder.encode
        monkeypatch.setattr(encoder, "encode", lambda prompts, e=encode, t=told: t.update(prompts) or e(prompts))
    cascade.generate([Request("a red star", "a blue circle", seed=3)])
    assert texts == {
        "base": {"a red star", "a blue circle"},
        "interpolation": {"a red star, blue", "None"},
        "upscaling": {"a red star", ""},
    }


def test_given_frames_go_to_the_first_stage() -> None:
    frames = "{type: given_frames}"
    beside = "base.denoiser.conditioners=[{type: concat, name: frames, channels: 5}]"
    cascade = small_cascade("upscaling=null", f"base.source={frames}", beside)
    first = Given(PixelVideo(torch.rand(1, 3, 1, 16, 16), 8.0))
    free, started = (cascade.generate([Request("a star", given=given)]) for given in (None, first))
    assert not torch.allclose(latent(free), latent(started), atol=1e-3)
    with pytest.raises(SpecError, match="the model starts from text alone"):
        small_cascade().generate([Request("a star", given=first)])


def test_latents_are_kept_by_the_names_of_the_stages() -> None:
    cascade, kept = small_cascade(), {}
    whole = cascade.generate([REQUEST], keep=lambda name, make: kept.setdefault(name, make()))
    assert [*kept] == ["base", "interpolation", "upscaling"]
    made: list[str] = []
    again = cascade.generate([REQUEST], lambda name, step: made.append(name), keep=lambda name, make: kept[name])
    assert torch.equal(latent(whole), latent(again))
    assert made == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("interpolaton=null", "interpolaton: unknown key. Did you mean 'interpolation'"),
        ("base=null", "base: "),
        ("handover=avi", "handover: "),
        ("interpolation.source.every=0", "interpolation.source.every: must be greater than or equal to 1"),
    ],
)
def test_what_no_cascade_has_is_named_with_its_place(override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        small_cascade_spec(override)


def test_parts_that_do_not_fit_are_named_with_their_stage() -> None:
    with pytest.raises(SpecError, match=r"^upscaling\.source\.factor: the video grows by 2, but the autoencoder's"):
        small_cascade_spec("upscaling.source.factor=2").build()
    with pytest.raises(SpecError, match=r"^base\.video\.width: 15 is no multiple of the autoencoder's factor 2"):
        small_cascade_spec("base.video.width=15").build()


def differences(one: object, other: object, path: str = "") -> set[str]:
    if isinstance(one, dict) and isinstance(other, dict) and one.get("type") == other.get("type"):
        below = [differences(one.get(key), other.get(key), f"{path}.{key}") for key in {*one, *other}]
        return set().union(*below)
    return set() if one == other else {path[1:]}


def test_a_video_that_a_later_stage_would_make_too_long_or_large_is_refused_at_once() -> None:
    long = small_cascade_spec("base.video.num_frames=1100")
    with pytest.raises(SpecError, match=r"^interpolation\.video\.num_frames: must be less than .* \(got 4397\)"):
        long.shape()
    wide = small_cascade_spec("base.video.width=5000")
    with pytest.raises(SpecError, match=r"^upscaling\.video\.width: must be less than .* \(got 20000\)"):
        wide.shape()


def test_every_flaw_of_the_release_is_an_option_of_its_own() -> None:
    ours, official = (dump(shipped(name)) for name in ("cascade", "cascade-official"))
    assert differences(ours, official) == {
        "handover",
        "interpolation.prompt.underscores",
        "interpolation.source.posterior",
        "upscaling.prompt.underscores",
        "upscaling.coverage.overlap",
    }
