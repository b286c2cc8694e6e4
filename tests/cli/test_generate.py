"""`lavie generate`: prompts in, files out, and an answer to everything else."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_model import small_weights

from lavie.cli.app import run
from lavie.cli.progress import Display
from lavie.errors import VideoError
from lavie.generation.record import Record, read_record
from lavie.video import read_video

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds small.yaml and its weights."""
    folder = tmp_path_factory.mktemp("small")
    small_weights(folder)
    return folder


@pytest.fixture
def generate(small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the verb; return exit code, lines of stdout, and stderr."""

    def call(*tokens: str) -> tuple[int, list[str], str]:
        defaults = {"--weights": small / "weights", "--output-dir": tmp_path / "out", "--device": "cpu"}
        options = [str(part) for pair in defaults.items() if pair[0] not in tokens for part in pair]
        try:
            code = run(["generate", *options, *tokens])
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out.splitlines(), err

    return call


def records(paths: list[str]) -> list[Record]:
    return [read_record(Path(path)) for path in paths]


def parts_of(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".part")] if folder.exists() else []


def test_paths_and_nothing_else_are_printed(generate: Run, tmp_path: Path) -> None:
    code, paths, err = generate("a red circle")
    assert code == 0
    assert [Path(path).parent for path in paths] == [tmp_path / "out"]
    assert read_video(Path(paths[0])).frames.shape == (3, 16, 16, 3)
    assert err == "note: 16×16 pixels are small on a screen; --scale 4 writes larger ones\n"


def test_prompts_of_line_and_file_each_get_seeds_that_count_up(generate: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("# list\na blue  star\n\na red circle\n")
    options = ["--prompt-file", str(tmp_path / "prompts.txt"), "--seed", "7", "--num-videos", "2"]
    code, paths, err = generate("a red circle", *options, "--negative-prompt", "blue")
    assert code == 0
    recipes = [record.recipe for record in records(paths)]
    assert [(recipe.prompt, recipe.seed) for recipe in recipes] == [
        ("a red circle", 7),
        ("a red circle", 8),
        ("a blue star", 7),
        ("a blue star", 8),
    ]
    assert {recipe.negative_prompt for recipe in recipes} == {"blue"}
    assert "2 of 6 videos are asked for twice and made once" in err


def test_options_change_the_spec(generate: Run) -> None:
    sizes = ["--num-frames", "2", "--height", "20", "--width", "24", "--fps", "4"]
    options = ["--steps", "1", "--guidance-scale", "1.5", "--set", "sampler.offset=1", "--set=video.fps=30"]
    code, paths, err = generate("a star", *sizes, *options)
    (record,) = records(paths)
    assert code == 0
    assert record.spec["video"] == {"num_frames": 2, "height": 20, "width": 24, "fps": 4.0}
    assert (record.spec["sampler"]["num_inference_steps"], record.spec["sampler"]["offset"]) == (1, 1)
    assert record.spec["guidance"]["scale"] == 1.5
    assert read_video(Path(paths[0])).fps == 4
    assert "the weights were made for 3 frames of 16×16; 2 frames of 20×24 may look worse" in err


def test_another_sampler_keeps_the_number_of_steps(generate: Run) -> None:
    schedule = ["--set", "schedule=linear", "--set", "prediction_type=epsilon"]
    for options, steps in ([], 2), (["--steps", "3"], 3):
        code, paths, _ = generate("a star", "--sampler", "ddim", *schedule, *options)
        assert code == 0
        sampler = records(paths)[0].spec["sampler"]
        assert (sampler["type"], sampler["num_inference_steps"]) == ("ddim", steps)


def test_gif_scale_and_contact_sheet(generate: Run) -> None:
    code, paths, err = generate("a star", "a circle", "--format", "gif", "--scale", "8", "--contact-sheet")
    assert code == 0
    assert [Path(path).suffix for path in paths] == [".gif", ".gif", ".png"]
    assert read_video(Path(paths[0])).frames.shape == (3, 128, 128, 3)
    with Image.open(paths[2]) as sheet:
        assert sheet.height > 2 * 128
    assert err == ""


def test_half_precision_makes_videos_too(generate: Run) -> None:
    code, paths, _ = generate("a star", "--dtype", "bfloat16")
    assert code == 0
    assert records(paths)[0].recipe.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--num-frames 0", "--num-frames: must be greater than or equal to 1 (got 0)"),
        ("--num-frames 1000000", "--num-frames: must be less than or equal to 4096"),
        ("--num-frames 99999999999999999999", "--num-frames: 99999999999999999999 is beyond"),
        ("--steps 0", "--steps: must be greater than or equal to 1"),
        ("--steps x", '--steps: "x" is no whole number'),
        ("--seed 1.5", '--seed: "1.5" is no whole number'),
        ("--scale 2.0", '--scale: "2.0" is no whole number'),
        ("--guidance-scale nan", "--guidance-scale: must be a valid number"),
        ("--guidance-scale=-inf", "--guidance-scale: must be a valid number"),
        ("--fps 0", "--fps: must be greater than 0"),
        ("--fps 60 --format gif", "60 frames per second; must be above 0 and at most 50"),
        ("--height 17", "--height: 17 is no multiple of the autoencoder's factor 2"),
        ("--height 16384 --width 16384 --num-frames 4096", "--num-frames, --height, --width: 4096 frames of 16384"),
        ("--scale 0", '"0" for --scale. Must be >= 1'),
        ("--scale 65", '"65" for --scale. Must be <= 64'),
        ("--seed -1", '"-1" for --seed. Must be >= 0'),
        ("--seed 1180591620717411303424", "for --seed. Must be < 9223372036854775808"),
        ("--seed 9223372036854775807 --num-videos 2", "--seed: must be a whole number in [0, 2^63)"),
        ("--num-videos 0", '"0" for --num-videos. Must be >= 1'),
        ("--sampler none", "--sampler: unknown sampler 'none'"),
        ("--spec no-such", "spec 'no-such': no such file"),
        ("--weights no-such", "no-such has no manifest.json"),
        ("--device cuda:banana", "--device: unknown device 'cuda:banana'"),
        ("--dtype float8", 'Invalid value "float8" for --dtype'),
        ("--format avi", 'Invalid value "avi" for --format'),
        ("--set x", "an override reads path=value"),
        ("--set video.num_frame=1", "video.num_frame: unknown key. Did you mean 'num_frames'?"),
        ("--prompt-file no-such", "no-such: cannot be read: No such file"),
        ("--output-dir /dev/null", "/dev/null: cannot be the output folder"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_bad_options_are_named_and_nothing_is_made(generate: Run, tmp_path: Path, options: str, message: str) -> None:
    code, paths, err = generate("a star", *options.split())
    assert (code, paths) == (2, [])
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((), 'say what to show, as in: lavie generate "a red circle moving left"'),
        (("a green star",), "weights does not know 'green' in the prompt 'a green star'"),
        (("a star", "🙂"), "weights does not know '🙂'"),
        (("a star", "--negative-prompt", "ugly"), "does not know 'ugly' in the prompt 'ugly'"),
        (("a\0star",), "prompt 1: control character U+0000 at character 2"),
        (("a star", "x" * 10_001), "prompt 2: 10,001 characters"),
        (("a star", "--negative-prompt", "\x1b"), "--negative-prompt: control character U+001B"),
        (("a \udcff star",), "prompt 1: half of a surrogate pair"),
    ],
)
def test_prompts_that_cannot_be_shown_are_answered(
    generate: Run, tmp_path: Path, tokens: tuple[str, ...], message: str
) -> None:
    code, paths, err = generate(*tokens)
    assert (code, paths) == (2, [])
    assert message in err
    assert not (tmp_path / "out").exists()


def test_forgotten_quotes_empty_prompts_and_cut_words_are_noted(generate: Run) -> None:
    code, paths, err = generate("red", "star", "")
    assert (code, len(paths)) == (0, 3)
    assert "an empty prompt asks for any video at all" in err
    code, paths, err = generate("red", "star")
    assert "note: 2 prompts of one word each; put a prompt of several words in quotes" in err
    code, paths, err = generate("a red star moving a blue circle")
    assert (code, len(paths)) == (0, 1)
    assert (
        "warning: the prompt 'a red star moving a blue circle' is longer than weights reads; cut off: 'circle'" in err
    )


def test_a_second_run_makes_only_what_is_missing(generate: Run) -> None:
    _, first, _ = generate("a star", "--num-videos", "2")
    times = [os.stat(path).st_mtime_ns for path in first]
    code, second, err = generate("a star", "--num-videos", "3", "--contact-sheet")
    assert code == 0
    assert second[:2] == first
    assert "note: 2 of 3 videos are already there; --overwrite makes them anew" in err
    assert [os.stat(path).st_mtime_ns for path in first] == times
    code, third, _ = generate("a star", "--num-videos", "3", "--overwrite")
    assert (code, third) == (0, second[:3])
    assert [os.stat(path).st_mtime_ns for path in first] != times


def test_files_made_in_another_way_are_not_replaced_unasked(generate: Run) -> None:
    _, (path,), _ = generate("a star")
    before = Path(path).read_bytes()
    code, paths, err = generate("a star", "--scale", "2")
    assert (code, paths) == (2, [])
    assert f"{path} is there, made with another scale. Use --overwrite" in err
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_an_interrupt_keeps_whole_files_and_says_how_to_go_on(
    generate: Run, tmp_path: Path, error: BaseException, code: int
) -> None:
    steps: Iterator[BaseException | None] = iter([None, None, None, error])

    def stop(display: Display, stage: str, step: object) -> None:
        if (reason := next(steps, None)) is not None:
            raise reason

    with mock.patch.object(Display, "on_step", stop):
        ended, paths, err = generate("a star", "--num-videos", "3")
    assert (ended, len(paths)) == (code, 1)
    assert "1 of 3 videos are done; the same command makes the rest" in err
    assert len(os.listdir(tmp_path / "out")) == 2
    ended, paths, _ = generate("a star", "--num-videos", "3")
    assert (ended, len(paths)) == (0, 3)
    assert parts_of(tmp_path / "out") == []


def test_a_full_disk_ends_the_run_with_code_1(generate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: object) -> None:
        raise VideoError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr("lavie.generation.generated.write_video", fail)
    code, paths, err = generate("a star")
    assert (code, paths) == (1, [])
    assert "No space left on device\n0 of 1 videos are done; the same command makes the rest" in err


def test_too_little_memory_is_said_in_plain_words(generate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("lavie.stages.coverage.AtOnce.latent", fail)
    code, _, err = generate("a star")
    assert code == 1
    assert "out of memory on cpu while sampling in the stage base: ask for fewer frames or a smaller size" in err


WORDS = st.sampled_from(["a", "red", "star", "../../x", "CON", "; rm", "🙂", "\u202e", "--", "-x", "'", "%s", "\x00"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, max_size=5).map(" ".join) | st.text(max_size=30))
@example("../../x")
@example("\ud800")
def test_whatever_the_prompt_there_is_an_answer_and_no_stray_file(generate: Run, tmp_path: Path, prompt: str) -> None:
    code, paths, _ = generate("--steps", "1", "--", prompt)
    assert code in (0, 2)
    assert bool(paths) == (code == 0)
    assert os.listdir(tmp_path) in ([], ["out"])
    assert all(len(Path(path).name.encode()) <= 120 for path in paths)
    assert parts_of(tmp_path / "out") == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_tells_video_steps_rate_and_time(generate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    code, paths, _ = generate("a star", "a circle")
    assert (code, len(paths)) == (0, 2)
    for text in ("video 1 of 2, sampling", "video 2 of 2, writing", "2/2", "3/3", "/s", "left"):
        assert text in terminal.getvalue()
    assert paths[0] not in terminal.getvalue()


MAIN = "import sys; from lavie.cli.app import main; main()"


def test_a_killed_run_leaves_whole_files_only(small: Path, tmp_path: Path) -> None:
    options = ["--weights", str(small / "weights"), "--output-dir", str(tmp_path), "--num-videos", "10000"]
    command = [sys.executable, "-c", MAIN, "generate", "a star", *options, "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        paths, err = process.communicate(timeout=600)
    assert process.returncode == 143
    assert "of 10000 videos are done; the same command makes the rest" in err
    assert "Traceback" not in err
    assert parts_of(tmp_path) == []
    for path in paths.split():
        assert len(read_video(Path(path)).frames) == 3


def test_only_what_is_needed_is_imported(small: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from lavie.cli.app import run; import lavie.cli.generate\n"
        "light = sorted({'torch', 'av', 'PIL', 'rich'} & set(sys.modules))\n"
        "code = run(sys.argv[1:])\n"
        "heavy = {'torchvision', 'open_clip', 'timm', 'matplotlib', 'sympy', 'rich', 'torch._dynamo'}\n"
        "print(code, light, sorted(heavy & set(sys.modules)))"
    )
    options = ["--weights", str(small / "weights"), "--output-dir", str(tmp_path), "--device", "cpu"]
    command = [sys.executable, "-c", script, "generate", "a star", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.splitlines()[-1] == "0 [] []"
