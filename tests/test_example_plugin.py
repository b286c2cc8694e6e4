"""The example plugin is installed with pip, as a user would, and used through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "lavie-dwconv"
LAYER = "denoiser.transformer.temporal"
DRIVER = """
import contextlib, io, json, os, sys
from lavie.cli.app import run
from lavie.registry import installed

def call(tokens, plugins="dwconv"):
    os.environ["LAVIE_PLUGINS"] = plugins
    installed.cache_clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(tokens)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}

said = [call(**each) for each in json.loads(sys.argv[1])]
import pytest
with contextlib.redirect_stdout(io.StringIO()) as out:
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", sys.argv[2], sys.argv[2]])
print(json.dumps([*said, {"code": int(code), "out": out.getvalue(), "err": ""}]))
"""
CALLS: dict[str, dict[str, object]] = {
    "listed": {"tokens": ["plugins", "--strict"]},
    "used": {"tokens": ["check", "base-tiny", "--set", f"{LAYER}.type=dwconv", "--set", f"{LAYER}.reach=2"]},
    "misused": {"tokens": ["check", "base-tiny", "--set", f"{LAYER}={{type: dwconv, reech: 2}}"]},
    "missed": {"tokens": ["check", "base-tiny", "--set", f"{LAYER}=dwconv"], "plugins": ""},
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Install the example into a folder, without network, and run all commands and its tests in one process."""
    folder = tmp_path_factory.mktemp("installed")
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *words, "--target", str(folder), str(EXAMPLE)]
    subprocess.run(install, check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, json.dumps(list(CALLS.values())), str(EXAMPLE / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip([*CALLS, "tested"], json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_the_installed_example_is_listed_as_ok(said: dict[str, dict[str, str]]) -> None:
    assert said["listed"]["code"] == 0
    row = next(line.split() for line in said["listed"]["out"].splitlines() if line.startswith("dwconv"))
    assert row == ["dwconv", "lavie-dwconv", "0.1.0", "ok", "temporal:dwconv"]


def test_a_spec_can_use_it_by_its_name(said: dict[str, dict[str, str]]) -> None:
    assert said["used"]["code"] == 0, said["used"]["err"]
    assert "base-tiny: ok (stage latent_diffusion" in said["used"]["out"]


def test_a_wrong_setting_of_it_is_told_by_its_path(said: dict[str, dict[str, str]]) -> None:
    assert said["misused"]["code"] == 2
    assert f"{LAYER}.reech: unknown key. Did you mean 'reach'? Known: type, reach." in said["misused"]["err"]


def test_without_it_the_name_is_unknown_and_the_rest_works(said: dict[str, dict[str, str]]) -> None:
    assert said["missed"]["code"] == 2
    assert f"{LAYER}: unknown temporal 'dwconv'." in said["missed"]["err"]
    assert "Installed: attention, conv, none" in said["missed"]["err"]


def test_its_own_tests_pass(said: dict[str, dict[str, str]]) -> None:
    assert said["tested"]["code"] == 0, said["tested"]["out"]
    assert "2 passed" in said["tested"]["out"]
