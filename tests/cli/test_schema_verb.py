"""`lavie schema`."""

import json

import pytest

import lavie.builtin
from lavie.cli.app import run
from lavie.registry import Registry


def test_a_kind_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "sampler"]) == 0
    assert "sampler.ddim" in json.loads(capsys.readouterr().out)["$defs"]


def test_without_a_kind_the_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    kinds = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert kinds == Registry(lavie.builtin).kinds()


def test_an_unknown_kind_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "sampelr"]) == 2
    assert "unknown kind 'sampelr'. Did you mean 'sampler'?" in capsys.readouterr().err
