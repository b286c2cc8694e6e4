"""Files of a run have names without prompts, are made once, and are never lost or mixed up."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_model import small_registry, small_spec, small_weights

from lavie.errors import PromptError, VideoError
from lavie.generation.choice import choose_model
from lavie.generation.model import Model
from lavie.generation.outputs import Job, Outputs, Watch, plan, run
from lavie.generation.prompts import normalise
from lavie.generation.record import read_record, sidecar_of
from lavie.generation.sheet import Sheet
from lavie.stages import OnStep, PixelVideo, Request, Stage
from lavie.video import read_video

HOSTILE = [
    "",
    "../../x",
    "..\\..\\x",
    "/etc/passwd",
    "CON",
    "; rm -rf ~",
    "$(reboot)",
    "`id`",
    "-x",
    "~",
    "a\u202etxt.exe",
    "👩\u200d👩\u200d👧",
    "مرحبا",
    "x" * 10_000,
    "%s%n",
    "NUL.mp4",
]


class FakeStage(Stage):
    """A stage whose videos are flat grey by prompt and seed; it can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Request] = []
        self.fails_at: tuple[int, BaseException] | None = None

    def generate(self, requests: Sequence[Request], on_step: OnStep | None = None, keep: object = None) -> PixelVideo:
        (request,) = requests
        if self.fails_at is not None and len(self.asked) == self.fails_at[0]:
            raise self.fails_at[1]
        self.asked.append(request)
        return PixelVideo(torch.full((1, 3, 3, 16, 16), (request.seed + len(request.prompt)) % 9 / 10), fps=8.0)

    def parts(self) -> dict[str, Stage]:
        return {"": self}

    def num_steps(self) -> int:
        return 2

    def unknown_words(self, prompt: str) -> list[str]:
        return []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("small")
    weights = small_weights(folder, "text_encoder=any_text")
    return choose_model(weights=weights, device="cpu", registry=small_registry())


def make(requests: list[Request], model: Model, outputs: Outputs, stage: FakeStage | None = None) -> list[Path]:
    outputs.check(model)
    outputs.prepare()
    return [job.path for job in run(plan(requests, model, outputs), model, stage or FakeStage(), outputs)]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=40), st.integers(0, 2**63 - 1))
@example("../../x", 2**63 - 1)
def test_names_are_short_and_safe_whatever_the_prompt(model: Model, prompt: str, seed: int) -> None:
    try:
        prompt = normalise(prompt)
    except PromptError:
        return
    name = Outputs(Path("out")).path(model.recipe(Request(prompt, prompt[::-1], seed)))
    assert name.parent == Path("out")
    assert len(name.name.encode()) <= 120
    assert set(name.name) <= set("0123456789abcdef-.mp4")


def test_hostile_prompts_stay_inside_the_folder(tmp_path: Path, model: Model) -> None:
    folder = tmp_path / "deep" / "out"
    paths = make([Request(normalise(prompt)) for prompt in HOSTILE], model, Outputs(folder))
    assert len(set(paths)) == len(HOSTILE)
    assert {path.parent for path in paths} == {folder}
    assert files(tmp_path) == {"deep", "deep/out"} | {f"deep/out/{p.name}{end}" for p in paths for end in ("", ".json")}
    for path, prompt in zip(paths, HOSTILE, strict=True):
        assert read_record(path).recipe.prompt == normalise(prompt)


def test_a_second_run_makes_nothing_anew(tmp_path: Path, model: Model) -> None:
    outputs, stage = Outputs(tmp_path), FakeStage()
    requests = [Request("a"), Request("a", seed=1), Request("b")]
    first = make(requests[:2], model, outputs, stage)
    assert make(requests, model, outputs, stage)[:2] == first
    assert stage.asked == requests


def test_equal_requests_share_a_file(tmp_path: Path, model: Model) -> None:
    stage = FakeStage()
    assert len(make([Request("a"), Request("b"), Request("a")], model, Outputs(tmp_path), stage)) == 2
    assert len(stage.asked) == 2


def test_a_file_made_in_another_way_is_refused_unless_overwritten(tmp_path: Path, model: Model) -> None:
    make([Request("a")], model, Outputs(tmp_path))
    with pytest.raises(VideoError, match=r"\.mp4 is there, made with another scale\. Use --overwrite"):
        make([Request("a")], model, Outputs(tmp_path, scale=2))
    (path,) = make([Request("a")], model, Outputs(tmp_path, scale=2, overwrite=True))
    assert read_video(path).frames.shape == (3, 32, 32, 3)
    assert read_record(path).recipe.scale == 2
    path.write_text("something of the user's")
    sidecar_of(path).unlink()
    with pytest.raises(VideoError, match=r"\.mp4 is in the way: .*cannot be read"):
        make([Request("a")], model, Outputs(tmp_path))
    assert path.read_text() == "something of the user's"


def test_a_missing_sidecar_is_written_anew_from_the_video(tmp_path: Path, model: Model) -> None:
    stage = FakeStage()
    (path,) = make([Request("a")], model, Outputs(tmp_path), stage)
    recipe = read_record(path).recipe
    sidecar_of(path).unlink()
    make([Request("a")], model, Outputs(tmp_path), stage)
    assert read_record(sidecar_of(path)).recipe == recipe
    assert len(stage.asked) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupt_keeps_what_is_done_and_the_rest_follows_later(
    tmp_path: Path, model: Model, error: BaseException
) -> None:
    requests, stage = [Request("a", seed=seed) for seed in range(4)], FakeStage()
    stage.fails_at = (2, error)
    with pytest.raises(type(error)):
        make(requests, model, Outputs(tmp_path), stage)
    assert len(files(tmp_path)) == 4
    stage.fails_at = None
    paths = make(requests, model, Outputs(tmp_path), stage)
    whole = make(requests, model, Outputs(tmp_path / "whole"))
    assert stage.asked == requests
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in whole]


def test_old_records_do_not_outlive_the_video_they_tell_of(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = make([Request("a")], model, Outputs(tmp_path))

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lavie.generation.generated.write_sidecar", fail)
    with pytest.raises(KeyboardInterrupt):
        make([Request("a")], model, Outputs(tmp_path, scale=2, overwrite=True))
    assert read_record(path).recipe.scale == 2


def test_the_same_request_gives_the_same_bytes(tmp_path: Path, model: Model) -> None:
    stage = model.load()
    paths = []
    for name, others in [("alone", []), ("among", [Request("x"), Request("y", seed=5)])]:
        jobs = plan([*others, Request("a", seed=7)], model, Outputs(tmp_path / name))
        (tmp_path / name).mkdir()
        paths.append([job.path for job in run(jobs, model, stage, Outputs(tmp_path / name))][-1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, reason in [
        (tmp_path / "file", "File exists"),
        (tmp_path / "file" / "below", "Not a directory"),
        (tmp_path / "nul\0", "embedded null byte"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(VideoError, match=f"cannot be the output folder: {reason}"):
            Outputs(folder).prepare()


def test_what_the_format_cannot_hold_is_refused_before_anything_is_made(tmp_path: Path, model: Model) -> None:
    odd = Model(
        small_spec(tmp_path, "video.height=14", "autoencoder.channels=[8]", "video.width=7"),
        "odd",
        model.weights,
        "cpu",
        "float32",
        model.registry,
    )
    with pytest.raises(VideoError, match="even height and width, got 14×7"):
        Outputs(tmp_path).check(odd)
    Outputs(tmp_path, scale=2).check(odd)
    Outputs(tmp_path, "gif").check(odd)


def test_the_sheet_shows_new_and_old_videos(tmp_path: Path, model: Model) -> None:
    outputs = Outputs(tmp_path)
    make([Request("a")], model, outputs)
    jobs = plan([Request("a"), Request("b")], model, outputs)
    sheet = Sheet(jobs, tmp_path, 3)
    for job in run(jobs, model, FakeStage(), outputs, Watch(on_frame=sheet.on_frame)):
        assert job.is_done == (job.request.prompt == "a")
        sheet.add(job)
    assert sheet.write() == sheet.path
    assert sheet.path.name.startswith("contact-sheet-")
    assert Sheet(jobs[:1], tmp_path, 3).path != sheet.path


def test_a_long_run_fills_one_sheet_and_no_more(tmp_path: Path) -> None:
    job = Job(Request("a"), tmp_path / "a.mp4", is_done=False)
    sheet = Sheet([job], tmp_path, 3)
    for _ in range(150):
        sheet.on_frame(0, np.zeros((16, 16, 3), np.uint8))
        sheet.add(job)
    assert sheet.write().is_file()


def test_videos_are_handed_out_one_by_one(tmp_path: Path, model: Model) -> None:
    tmp_path.joinpath("out").mkdir()
    outputs = Outputs(tmp_path / "out")
    made: Iterator[object] = run(plan([Request("a"), Request("b")], model, outputs), model, FakeStage(), outputs)
    next(made)
    assert len(files(outputs.folder)) == 2
