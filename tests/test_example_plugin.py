"""The example plugin is installed with pip, as a user would, and used through the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "lavie-dwconv"
LAYER = "denoiser.transformer.temporal"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed, without network."""
    folder = tmp_path_factory.mktemp("installed")
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *words, "--target", str(folder), str(EXAMPLE)]
    subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PIP_NO_INPUT": "1"})
    return folder


def lavie(target: Path, *tokens: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with the example on the path, and, unless told otherwise, nothing else pinned."""
    paths = os.pathsep.join([str(target), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths, "LAVIE_PLUGINS": "dwconv", "OMP_NUM_THREADS": "1", **environment}
    code = "from lavie.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *tokens], capture_output=True, text=True, env=env, check=False)


def test_the_installed_example_is_listed_as_ok(target: Path) -> None:
    done = lavie(target, "plugins", "--strict")
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("dwconv"))
    assert row == ["dwconv", "lavie-dwconv", "0.1.0", "ok", "temporal:dwconv"]


def test_a_spec_can_use_it_by_its_name(target: Path) -> None:
    done = lavie(target, "check", "base-tiny", "--set", f"{LAYER}.type=dwconv", "--set", f"{LAYER}.reach=2")
    assert done.returncode == 0, done.stderr
    assert "base-tiny: ok (stage text_to_video" in done.stdout


def test_a_wrong_setting_of_it_is_told_by_its_path(target: Path) -> None:
    done = lavie(target, "check", "base-tiny", "--set", f"{LAYER}={{type: dwconv, reech: 2}}")
    assert done.returncode == 2
    assert f"{LAYER}.reech: unknown key. Did you mean 'reach'? Known: type, reach." in done.stderr


def test_without_it_the_name_is_unknown_and_the_rest_works(target: Path) -> None:
    done = lavie(target, "check", "base-tiny", "--set", f"{LAYER}=dwconv", LAVIE_PLUGINS="")
    assert done.returncode == 2
    assert f"{LAYER}: unknown temporal 'dwconv'." in done.stderr
    assert "Installed: attention, conv, none" in done.stderr


def test_its_own_tests_pass(target: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(EXAMPLE / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=target, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
