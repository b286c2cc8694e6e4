"""`lavie generate --pretrained`: from a folder of published files to a video, and a record of what it was made from."""

import socket
from pathlib import Path

import pytest
import torch
from published import names_here, unpickled_here
from small_published import FILES, save_all, small_cascade, write_published

import lavie
from lavie.blocks.text import TextEncoderSpec
from lavie.cli.app import run
from lavie.generation.record import read_record
from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import CascadeSpec
from lavie.weights.files import sha256


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read our own pickles in this process."""
    monkeypatch.setattr("lavie.weights.source.unpickled", unpickled_here)
    monkeypatch.setattr("lavie.weights.source.names_in", names_here)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the specs, `published`, and the same weights as folders of lavie in `own`."""
    folder = tmp_path_factory.mktemp("files")
    spec = small_cascade(folder)
    save_all(write_published(folder / "published", spec), spec, folder / "own")
    return folder


def made(files: Path, output: Path, capfd: pytest.CaptureFixture[str], *tokens: object) -> tuple[Path, str]:
    """Make a video on the command line; return its path and what was said on stderr."""
    spec = ["--spec", files / "cascade.yaml", "--device", "cpu", "--output-dir", output]
    assert run(["generate", "a red circle", *map(str, [*spec, *tokens])]) == 0
    out, err = capfd.readouterr()
    return Path(out.strip()), err


def test_a_cascade_goes_from_published_files_to_a_video(
    files: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, said = made(files, tmp_path / "1", capfd, "--pretrained", files / "published")
    assert said.count("converting ") == 3
    assert "the weights were made for" not in said
    two, _ = made(files, tmp_path / "2", capfd, "--weights", files / "own")
    assert one.read_bytes() == two.read_bytes()
    sources = read_record(one).sources
    own = {f"{stage}: {name}" for name, (stage, _, _) in FILES.items()}
    assert sources.keys() == own | {f"interpolation: {name}" for name in FILES if name.startswith("sd/")}
    assert all(digest == sha256(files / "published" / name.split(": ")[1]) for name, digest in sources.items())
    assert read_record(one).recipe == read_record(two).recipe
    assert read_record(two).sources == {}
    short = ("--set", "upscaling=null", "--set", "interpolation=null")
    _, said = made(files, tmp_path / "3", capfd, "--pretrained", files / "published", "--num-frames", 1, *short)
    assert "converting" not in said
    assert "the weights were made for 2 frames" in said


def test_python_takes_the_same_folder(files: Path, tmp_path: Path) -> None:
    options = {"spec": files / "one.yaml", "device": "cpu", "seed": 3}
    video = lavie.generate("a red circle", pretrained=files / "published", converted=tmp_path / "kept", **options)
    (folder,) = (path for path in (tmp_path / "kept").iterdir() if path.is_dir())
    assert torch.equal(video.video, lavie.generate("a red circle", weights=files / "own" / "base", **options).video)
    assert torch.equal(video.video, lavie.generate("a red circle", weights=folder, **options).video)
    with pytest.raises(lavie.WeightsError, match="weights and pretrained both say where the networks come from"):
        lavie.generate("a", pretrained=files / "published", weights=folder, **options)
    with pytest.raises(lavie.WeightsError, match=r"name the spec that the files in .* are for, as in --spec cascade"):
        lavie.generate("a", pretrained=files / "published")
    with pytest.raises(lavie.WeightsError, match="converted says where what is made of pretrained goes"):
        lavie.generate("a", converted=tmp_path, **options)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--pretrained", "a", "--weights", "b", "--spec", "base"], "--weights and --pretrained both say"),
        (["--pretrained", "a"], "--pretrained needs the spec that the files are for"),
        (["--converted", "a", "--spec", "base"], "--converted says where what is made of --pretrained goes"),
        (["--pretrained", "no-such-folder", "--spec", "base-tiny"], "no-such-folder is no folder"),
    ],
)
def test_options_that_exclude_or_lack_one_another_are_refused(
    tokens: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "a red circle", *tokens]) == 2
    assert message in capfd.readouterr().err


def test_the_published_text_encoders_get_their_padding_and_no_network_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*arguments: object, **options: object) -> None:
        raise AssertionError("somebody wants to connect")

    monkeypatch.setattr(socket, "socket", no_network)
    spec = load_spec("cascade", installed(), (), "stage")
    assert isinstance(spec, CascadeSpec)
    ends = {}
    for name, part in spec.parts().items():
        encoder = getattr(part, "text_encoder")  # noqa: B009
        assert isinstance(encoder, TextEncoderSpec)
        with torch.device("meta"):
            built = encoder.build()
        with torch.device("cpu"):
            ids = built.tokenize(["a photo of a cat"])[0].tolist()
        assert ids[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
        assert len(ids) == 77
        ends[name] = set(ids[7:])
    assert ends == {"base": {49407}, "interpolation": {49407}, "upscaling": {0}}
