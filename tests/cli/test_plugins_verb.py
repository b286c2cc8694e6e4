"""`lavie plugins`: one listing of good and bad plugins, each imported alone."""

import importlib
import importlib.metadata
from pathlib import Path

import pytest
from packages import install, light

from lavie.cli.app import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, from which alone plugins are found."""
    distributions = importlib.metadata.distributions
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: distributions(path=[str(tmp_path)]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LAVIE_PLUGINS")
    return tmp_path


def table(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    importlib.invalidate_caches()
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[1]: " ".join(line.split()) for line in lines[1:]}


def test_each_plugin_has_a_row_with_its_status_and_cause(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder, "good", light("codec", "gif"), version="1.2")
    install(folder, "gone", "import os; os._exit(3)")
    install(folder, "noisy", "print('x' * 100_000); raise RuntimeError('no such driver')")
    install(folder, "thief", light("temporal", "attention"))
    install(folder, "left", light("codec", "left"), entry_point="twin")
    install(folder, "right", light("codec", "right"), entry_point="twin")
    assert run(["plugins"]) == 0
    rows = table(capsys)
    assert rows["good"] == "good good 1.2 ok codec:gif"
    assert "broken cannot be imported: it ended its process, exit code 3" in rows["gone"]
    assert "broken cannot be imported: RuntimeError: no such driver" in rows["noisy"]
    assert "conflict temporal:attention temporal 'attention' is lavie's own name" in rows["thief"]
    assert "twin left 1.0 conflict packages 'left' and 'right' have the same entry point" in rows["left"]
    monkeypatch.setenv("LAVIE_PLUGINS", "good")
    assert run(["plugins", "--strict"]) == 0
    assert "skipped" in table(capsys)["gone"]


def test_an_import_that_never_ends_is_ended(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVIE_PLUGINS_TIMEOUT", "1")
    install(folder, "endless", "while True:\n    try:\n        while True: pass\n    except BaseException: pass\n")
    monkeypatch.setattr("lavie.cli.plugins.GRACE_SECONDS", 1.0)
    assert run(["plugins", "--strict"]) == 1
    row = table(capsys)["endless"]
    assert "endless 1.0 broken cannot be imported: " in row
    assert row.endswith("took more than 1 seconds")


def test_listing_without_import_runs_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(folder, "harmful", f"open({str(folder / 'ran')!r}, 'w')")
    assert run(["plugins", "--no-import"]) == 0
    assert table(capsys)["harmful"] == "harmful harmful 1.0 installed"
    assert not (folder / "ran").exists()


def test_no_plugins_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins"]) == 0
    assert "no plugins installed" in capsys.readouterr().out
