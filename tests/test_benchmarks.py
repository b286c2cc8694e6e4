"""The benchmarks run, in their smallest setting, over whatever is registered; and their arithmetic is right."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lavie import builtin
from lavie.registry import Registry

ROOT = Path(__file__).parents[1]
PLUGIN = """
from typing import Literal

from lavie import Spec, hookimpl
from lavie.blocks import TemporalLayer, TemporalSpec
from torch import nn


class Gain(TemporalLayer):
    def __init__(self, channels):
        super().__init__()
        self.gain = nn.Linear(channels, channels)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)

    def forward(self, x, cond):
        return self.gain(x.movedim(1, -1)).movedim(-1, 1)


class GainSpec(TemporalSpec):
    type: Literal["gain"] = "gain"

    def build(self, site):
        return Gain(site.channels)


class NeedyGainSpec(TemporalSpec):
    type: Literal["needy_gain"] = "needy_gain"
    width: int

    def build(self, site):
        return Gain(self.width)


@hookimpl
def lavie_components() -> list[type[Spec]]:
    return [GainSpec, NeedyGainSpec]
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that a plugin is installed in."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "lavie_gain.py").write_text(PLUGIN)
    metadata = folder / "lavie_gain-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lavie-gain\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[lavie]\ngain = lavie_gain\n")
    return folder


@pytest.fixture(scope="module")
def smoke(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run all benchmarks once, and return what was printed and the JSON."""
    file = tmp_path_factory.mktemp("run") / "run.json"
    options = ["--setting=tiny", "--benchmark-min-rounds=1", "--benchmark-max-time=0.000001", "-q", "-rs"]
    command = [sys.executable, "-m", "pytest", str(ROOT / "benchmarks"), *options, f"--benchmark-json={file}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(plugin), str(ROOT)]), "LAVIE_PLUGINS": "gain"}
    environment.pop("LAVIE_OFFICIAL", None)
    done = subprocess.run(command, env=environment, cwd=file.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout, file


@pytest.fixture
def entries(smoke: tuple[str, Path]) -> list[dict[str, Any]]:
    benchmarks: list[dict[str, Any]] = json.loads(smoke[1].read_text())["benchmarks"]
    return benchmarks


def cases(entries: list[dict[str, Any]], group: str) -> set[str]:
    return {each["extra_info"]["case"] for each in entries if each["group"] == group}


def test_every_registered_temporal_layer_is_timed_plugins_included(entries: list[dict[str, Any]]) -> None:
    expected = {*Registry(builtin).components("temporal"), "gain"}
    assert expected <= cases(entries, "forward")


def test_every_registered_sampler_is_timed(entries: list[dict[str, Any]]) -> None:
    expected = set(Registry(builtin).components("sampler"))
    assert cases(entries, "sampler") == expected


def test_all_groups_are_measured(entries: list[dict[str, Any]]) -> None:
    assert {"attention", "forward", "resnet", "sampler", "train", "vae"} <= {each["group"] for each in entries}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_is_measured_for_every_layer(entries: list[dict[str, Any]]) -> None:
    assert cases(entries, "memory") == cases(entries, "forward")
    assert all(each["extra_info"]["peak_bytes"] > 0 for each in entries if each["group"] == "memory")


def test_more_layers_are_more_work(entries: list[dict[str, Any]]) -> None:
    flops = {each["extra_info"]["case"]: each["extra_info"]["gflop"] for each in entries if each["group"] == "forward"}
    assert flops["none"] < flops["attention"] == flops["attention+rope+bias"]


def test_what_cannot_be_measured_is_skipped_with_a_reason(smoke: tuple[str, Path]) -> None:
    printed = smoke[0]
    assert "needy_gain" not in printed.split("short test summary")[0]
    assert "width" in printed
    assert torch.cuda.is_available() or "no CUDA device" in printed


def test_the_report_has_a_table_for_each_group(smoke: tuple[str, Path], entries: list[dict[str, Any]]) -> None:
    command = [sys.executable, "-m", "benchmarks.report", str(smoke[1]), "--against", str(smoke[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert {line.split()[1] for line in done.stdout.splitlines() if line.startswith("###")} == {
        each["group"] for each in entries
    }
    assert "ratio before" in done.stdout


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return what imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


class Record:
    """Stands in for pytest-benchmark's fixture."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, target: Callable[[], object], **options: Any) -> None:
        for _ in range(options["rounds"]):
            options["setup"]()
            target()
            options["teardown"]()


def test_pairs_are_measured_in_the_order_abba(module: Callable[[str], ModuleType]) -> None:
    measuring = module("measuring")
    order: list[str] = []
    record = Record()

    def run(letter: str) -> Callable[[], torch.Tensor]:
        return lambda: (order.append(letter), torch.zeros(1))[1]

    limits = measuring.Limits(min_rounds=4, max_seconds=0.0)
    bench = measuring.Bench(record, torch.device("cpu"), limits, yardstick=lambda: torch.zeros(1))
    bench.compare(run("B"), run("A"))
    assert "".join(order).endswith("ABBAABBA")
    assert set(record.extra_info["ratio"]) == {"median", "q1", "q3"}


def test_a_wrong_answer_is_not_timed(module: Callable[[str], ModuleType]) -> None:
    measuring = module("measuring")
    record = Record()
    bench = measuring.Bench(record, torch.device("cpu"), measuring.Limits(1, 0.0), yardstick=lambda: torch.zeros(1))
    with pytest.raises(AssertionError, match=r"differs from the plain reference by 1\.0e-03"):
        bench.compare(lambda: torch.full((2,), 0.001), lambda: torch.zeros(2), expected=torch.zeros(2))
    assert "ratio" not in record.extra_info


def test_half_precision_may_differ_by_two_percent(module: Callable[[str], ModuleType]) -> None:
    check = module("measuring").check
    check(torch.full((8,), 1.015).bfloat16(), torch.ones(8))
    with pytest.raises(AssertionError, match=r"4\.0%"):
        check(torch.full((8,), 1.04).half(), torch.ones(8))


def test_the_sign_test_is_exact(module: Callable[[str], ModuleType]) -> None:
    sign_test = module("measuring").sign_test
    assert sign_test([1.0] * 5) == 2 / 32
    assert sign_test([1.0, -1.0] * 3) == 1.0


def test_silent_layers_are_awake_when_measured(module: Callable[[str], ModuleType]) -> None:
    subjects, tiny = module("subjects"), module("settings").SETTINGS["tiny"]
    registry = Registry(builtin)
    spec = subjects.denoiser_spec(tiny, {"type": "attention"}, registry)
    network, given = spec.build().eval().requires_grad_(False), subjects.inputs(tiny)
    silent = network(given.noisy, given.timestep, given.cond)
    subjects.awaken(network)
    awake = network(given.noisy, given.timestep, given.cond)
    assert (awake - silent).abs().max() > 1e-3


def test_noisy_rows_are_marked(module: Callable[[str], ModuleType]) -> None:
    report = module("report")
    facts = {
        "ratio": {"median": 1.5, "q1": 1.4, "q3": 1.6},
        "yardstick_seconds": {"median": 1.0, "q1": 0.9, "q3": 1.1},
    }
    assert "1.50 [1.40–1.60] (noisy)" in report.tables([report.Row("forward", "x", facts)])


def test_the_plot_is_drawn(smoke: tuple[str, Path], module: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    report = module("report")
    rows = [report.Row.of(entry) for entry in json.loads(smoke[1].read_text())["benchmarks"]]
    report.plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
