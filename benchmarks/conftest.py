"""Options and fixtures of the benchmarks."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measuring import Bench, Limits, Place
from benchmarks.peak import Peaks, Subject
from benchmarks.report import Row, tables
from benchmarks.settings import SETTINGS, Setting
from benchmarks.subjects import temporal_layers
from lavie import Registry, installed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ROWS = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lavie")
    group.addoption("--setting", choices=list(SETTINGS), default="narrow", help="Sizes of what is measured.")
    group.addoption("--threads", type=int, default=1, help="Threads of torch on the CPU.")
    group.addoption("--dtype", choices=list(DTYPES), default="float32", help="Precision of what is measured.")
    group.addoption("--baseline", default="none", help="Temporal layer that the others are compared with.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    torch.set_num_threads(config.getoption("--threads"))
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.pop("node", None)
    machine_info["torch"] = torch.__version__
    machine_info["torch_cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    machine_info["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[ROWS]:
        terminalreporter.write_line("")
        terminalreporter.write_line(tables(config.stash[ROWS]))


@pytest.fixture(scope="session")
def registry() -> Registry:
    return installed()


@pytest.fixture(scope="session")
def setting(pytestconfig: pytest.Config) -> Setting:
    return SETTINGS[pytestconfig.getoption("--setting")]


@pytest.fixture(scope="session")
def baseline_layer(pytestconfig: pytest.Config, registry: Registry) -> str:
    """Return the label of the temporal layer that the others are compared with."""
    label: str = pytestconfig.getoption("--baseline")
    if label not in (known := temporal_layers(registry)):
        raise pytest.UsageError(f"--baseline: no temporal layer {label!r}; there are {', '.join(known)}")
    return label


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> Place:
    """Return the device and the dtype of a case."""
    return Place(torch.device(request.param), DTYPES[request.config.getoption("--dtype")])


@pytest.fixture
def limits(pytestconfig: pytest.Config) -> Limits:
    return Limits(pytestconfig.getoption("benchmark_min_rounds"), float(pytestconfig.getoption("benchmark_max_time")))


@pytest.fixture
def bench(
    benchmark: BenchmarkFixture, place: Place, setting: Setting, limits: Limits, pytestconfig: pytest.Config
) -> Iterator[Bench]:
    """Return what times a case against its baseline; the one place that warms up and waits for the device."""
    size = 64 if setting.name == "tiny" else 1024
    matrix = torch.randn(size, size, device=place.device, dtype=place.dtype)
    bench = Bench(benchmark, place.device, limits, yardstick=lambda: matrix @ matrix)
    bench.note(
        setting=setting.name,
        device=place.device.type,
        dtype=str(place.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        yardstick_gflop=2 * size**3 / 1e9,
    )
    yield bench
    if "case" in benchmark.extra_info:
        pytestconfig.stash[ROWS].append(Row(benchmark.group or "", benchmark.name, benchmark.extra_info))


@pytest.fixture(scope="session")
def peaks() -> Iterator[Peaks]:
    with Peaks() as peaks:
        yield peaks


@pytest.fixture
def peak(peaks: Peaks, place: Place, setting: Setting) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Return what measures the memory of a forward pass with a temporal layer, in a fresh process."""

    def measure(temporal: dict[str, Any]) -> dict[str, float]:
        dtype = str(place.dtype).removeprefix("torch.")
        subject = Subject(setting.name, temporal, place.device.type, dtype, torch.get_num_threads())
        return peaks.measure(subject)

    return measure
