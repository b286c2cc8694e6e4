"""Plans fit: levers lower the peak in their order, and those said to change nothing change nothing."""

from pathlib import Path

import pytest
import torch
from small_model import small_spec

from lavie.errors import SpecError
from lavie.planning import Planner, Setting, format_size, parse_size
from lavie.registry import installed
from lavie.specfile import change_spec
from lavie.stages import LatentDiffusion, Request

WIDE = (
    "video={num_frames: 16, height: 48, width: 48}",
    "autoencoder.channels=[32, 32]",
    "autoencoder.decode_chunk=16",
    "sampler.num_inference_steps=1",
)


@pytest.fixture
def planner() -> Planner:
    return Planner(installed())


def setting(tmp_path: Path, *overrides: str) -> Setting:
    return Setting(small_spec(tmp_path, *overrides), torch.device("cpu"), torch.float32)


def test_levers_are_pulled_in_their_order_and_no_further_than_needed(tmp_path: Path, planner: Planner) -> None:
    start = setting(tmp_path, *WIDE)
    roomy = planner.measure(start)
    assert planner.fit(start, roomy.highest).options() == []
    plan = planner.fit(start, roomy.highest - 1)
    assert plan.options() == ["--set autoencoder.decode_chunk=4"]
    assert plan.highest < roomy.highest
    further = planner.fit(start, plan.highest - 1)
    assert further.options() == ["--set autoencoder.decode_chunk=1"]
    furthest = planner.fit(start, further.highest - 1)
    assert "--in-turn" in furthest.options()
    assert furthest.highest < further.highest < plan.highest


def test_every_plan_keeps_to_its_limit_until_the_smallest_is_named(tmp_path: Path, planner: Planner) -> None:
    start = setting(tmp_path, *WIDE)
    with pytest.raises(SpecError, match=r"max_memory: 1 MB are too little for .*smallest limit that would do is") as no:
        planner.fit(start, 10**6)
    smallest = parse_size(str(no.value).rsplit(" is ")[-1])
    plan = planner.fit(start, smallest)
    assert plan.highest <= smallest


def test_options_make_the_planned_spec_again(tmp_path: Path, planner: Planner) -> None:
    start = setting(tmp_path, *WIDE)
    plan = planner.fit(start, planner.measure(start).highest - 1)
    assert change_spec(start.spec, plan.setting.overrides, installed()) == plan.setting.spec


def test_smaller_pieces_give_the_same_video(tmp_path: Path, planner: Planner) -> None:
    start = setting(tmp_path, *WIDE, "video={num_frames: 3, height: 96, width: 80}")
    changed = change_spec(start.spec, ["autoencoder.tile=64", "autoencoder.decode_chunk=1"], installed())
    torch.manual_seed(0)
    one, other = start.spec.build().eval(), changed.build().eval()  # type: ignore[attr-defined]
    assert isinstance(one, LatentDiffusion)
    other.load_state_dict(one.state_dict())
    videos = [stage.generate([Request("a star")]).video() for stage in (one, other)]
    torch.testing.assert_close(videos[1], videos[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("12GB", 12 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), (" 7 KiB ", 7168), ("3B", 3)],
)
def test_sizes_are_read_as_people_write_them(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "12", "GB", "-1GB", "1e3GB", "12 XB", "1,5GB", "nan GB"])
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SpecError, match=r"^max_memory: .* is no size; write one such as 12GB, 1.5GiB or 500MB$"):
        parse_size(text)


def test_sizes_are_written_short() -> None:
    assert [format_size(each) for each in (0, 26_400_000, 1_234_567_890)] == ["0 MB", "26 MB", "1.23 GB"]
