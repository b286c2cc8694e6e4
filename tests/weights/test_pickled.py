"""`.pt` files from strangers: nothing runs, nothing is believed, and every refusal is one error."""

import argparse
import os
import random
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from published import unpickled_here
from safetensors.torch import load_file

import lavie
from lavie.errors import WeightsError
from lavie.weights import unpickling
from lavie.weights.pickled import names_in, unpickled

GOOD = {"ema": {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}, "step": 7}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def rewritten(path: Path, change: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]) -> Path:
    """Copy the records of a file of torch.save through `change`."""
    save(path, GOOD)
    with zipfile.ZipFile(path) as old:
        records = [(record, old.read(record)) for record in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for record, data in records:
            change(new, record, data)
    return path


def deflated(path: Path) -> None:
    rewritten(path, lambda new, record, data: new.writestr(record.filename, data, zipfile.ZIP_DEFLATED))


def renamed(old: str, name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        rewritten(path, lambda new, record, data: new.writestr(record.filename.replace(old, name), data))

    return make


def flipped(path: Path) -> Path:
    data = bytearray(save(path, GOOD).read_bytes())
    data[data.index(torch.arange(6.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(data)
    return path


def claiming(path: Path) -> None:
    """Let the directory say that a record is a terabyte large."""
    data = bytearray(save(path, GOOD).read_bytes())
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") * 2
    path.write_bytes(data)


def sparse_rows(path: Path) -> None:
    rows = torch.sparse_coo_tensor(torch.tensor([[0, 1], [0, 1]]), torch.ones(2), (2**20, 2**20), check_invariants=True)
    save(path, {"a": rows})


CLAIMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("hello"), "no zip archive"),
    "empty": (lambda path: path.write_bytes(b""), "no zip archive"),
    "old format": (lambda path: torch.save(GOOD, path, _use_new_zipfile_serialization=False), "before 1.6"),
    "truncated": (lambda path: path.write_bytes(save(path, GOOD).read_bytes()[:-30]), "it is damaged"),
    "something before it": (lambda path: path.write_bytes(b"#!/bin/sh\n" + save(path, GOOD).read_bytes()), "no zip"),
    "compressed": (deflated, "is compressed"),
    "size beyond the file": (claiming, "claim 2147|compressed"),
    "flipped bit": (flipped, "it is damaged: Bad CRC"),
    "program": (renamed("byteorder", "code/evil.py"), "holds a program"),
    "strange record": (renamed("byteorder", "evil.so"), "evil.so"),
    "several roots": (renamed("claim/data/1", "other/data/1"), "several names"),
    "no pickle": (renamed("data.pkl", "data/99"), "no data.pkl"),
    "stride 0": (lambda path: save(path, {"a": torch.zeros(1).expand(10**12)}), "claims 4000000000000 bytes, but 4"),
    "overlapping": (
        lambda path: (lambda base: save(path, {str(i): base[i:] for i in range(99)}))(torch.zeros(9999)),
        "tensors claim",
    ),
    "sparse": (sparse_rows, "no dense tensor"),
    "meta": (lambda path: save(path, {"a": torch.empty(2**40, device="meta")}), "no dense tensor"),
    "function": (lambda path: save(path, {"a": torch.ones(1), "x": Call(os.mkdir, str(path) + "!")}), r"mkdir; only"),
    "attribute": (lambda path: save(path, {"a": torch.ones(1), "x": Call(getattr, "text", "upper")}), "getattr; only"),
    "list": (lambda path: save(path, [torch.ones(1)]), "holds a list"),
    "no tensors": (lambda path: save(path, {"step": 3}), "no tensors by name"),
    "numbers for names": (lambda path: save(path, {1: torch.ones(1)}), "no tensors by name"),
}
"""A name for each bad file, how to make it, and what the refusal says."""


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_bad_file_is_refused_with_its_cause(claim, tmp_path):
    make, cause = CLAIMS[claim]
    path = tmp_path / "claim.pt"
    make(path)
    with pytest.raises(WeightsError, match=cause) as caught, unpickled_here(path):
        pass
    assert "weights_only" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["claim.pt"]


def test_another_process_reads_under_limits_and_runs_nothing(tmp_path, monkeypatch):
    """One good file, one that would run a command, one that asks for a terabyte, one that is no archive."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    canary = tmp_path / "canary"
    good = save(tmp_path / "good.pt", GOOD)
    bad = {
        save(tmp_path / "runs.pt", {"a": torch.ones(1), "x": Call(os.mkdir, str(canary))}): "asks for .*mkdir",
        save(tmp_path / "asks.pt", {"a": torch.ones(1), "x": Call(bytearray, 2**40)}): "asks for more memory",
        tmp_path / "text.pt": "no zip archive",
    }
    (tmp_path / "text.pt").write_text("hello")

    def refusal(path: Path) -> str:
        try:
            with unpickled(path):
                return ""
        except WeightsError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        refusals = pool.map(refusal, bad)
        with unpickled(good) as found:
            tensors = load_file(found.file)
            assert (found.container, found.left_over) == ("ema", {"step": "int"})
    assert all(torch.equal(tensors[key], value) for key, value in GOOD["ema"].items())
    for (path, cause), message in zip(bad.items(), refusals, strict=True):
        assert re.match(f"{re.escape(str(path))} cannot be read: .*{cause}", message)
    assert not canary.exists()
    assert not [*temporary.iterdir()]


@pytest.mark.parametrize(
    ("content", "container", "left_over"),
    [
        ({"a": torch.ones(2), "epoch": 3}, "", {"epoch": "int"}),
        ({"model": {"a": torch.zeros(2)}, "ema": {"a": torch.ones(2)}}, "ema", {"model": "dict"}),
        ({"model": {"a": torch.ones(2)}, "opt": {"lr": 0.1}, "ema": None}, "model", {"opt": "dict", "ema": "NoneType"}),
        ({"state_dict": {"a": torch.ones(2), "version": "2"}}, "state_dict", {"version": "str"}),
        (
            {"ema": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=1)},
            "ema",
            {"args": "bookkeeping of the training script"},
        ),
    ],
)
def test_the_network_is_found_in_what_training_scripts_write(content, container, left_over, tmp_path):
    with unpickled_here(save(tmp_path / "x.pt", content)) as found:
        assert (found.container, found.left_over) == (container, left_over)
        assert load_file(found.file)["a"].tolist() == [1, 1]


def test_views_and_shared_tensors_come_out_whole_and_apart(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    with unpickled_here(save(tmp_path / "x.pt", {"whole": base, "turned": base.T, "tied": base})) as found:
        tensors = load_file(found.file)
    assert torch.equal(tensors["turned"], base.T)
    assert torch.equal(tensors["tied"], base)


def test_a_damaged_file_is_refused_or_gives_the_same_numbers(tmp_path):
    data, chance = save(tmp_path / "x.pt", GOOD).read_bytes(), random.Random(0)
    for number in range(60):
        mutant = bytearray(data)
        place = chance.randrange(len(mutant))
        if number % 3 == 0:
            del mutant[place:]
        elif number % 3 == 1:
            mutant[place] ^= 1 << chance.randrange(8)
        else:
            mutant[place:place] = mutant[: chance.randrange(64)]
        path = tmp_path / f"{number}.pt"
        path.write_bytes(mutant)
        try:
            with unpickled_here(path) as found:
                tensors = load_file(found.file)
        except (WeightsError, OSError, RuntimeError, ValueError):
            continue
        assert all(torch.equal(tensors[key], value) for key, value in GOOD["ema"].items()), number


def test_names_and_shapes_are_told_by_another_process_too_without_the_data(tmp_path):
    path = flipped(tmp_path / "good.pt")
    found = names_in(path)
    assert found["tensors"] == {"a.weight": ["float32", [2, 3]], "b": ["float16", [4]]}
    assert (found["container"], found["left_over"]) == ("ema", {"step": "int"})
    with pytest.raises(WeightsError, match=r"runs\.pt cannot be read: its pickle asks for .*mkdir"):
        names_in(save(tmp_path / "runs.pt", {"a": torch.ones(1), "x": Call(os.mkdir, str(tmp_path / "canary"))}))
    assert not (tmp_path / "canary").exists()


def test_what_the_reader_raises_becomes_one_error_that_names_the_file(tmp_path, monkeypatch):
    def run(arguments: list[str], **_: object) -> argparse.Namespace:
        return argparse.Namespace(returncode=-9)

    monkeypatch.setattr("subprocess.run", run)
    path = save(tmp_path / "x.pt", GOOD)
    with pytest.raises(WeightsError, match=r"x\.pt cannot be read: the process that read it ended with code -9"):
        unpickled(path).__enter__()


def test_nothing_in_lavie_unpickles_without_protection():
    sources = [path.read_text(encoding="utf-8") for path in Path(lavie.__file__).parent.rglob("*.py")]
    calls = [call for source in sources for call in re.findall(r"torch\.load\([^)]*\)", source)]
    assert calls
    assert all("weights_only=True" in call for call in calls)
    assert not any(re.search(r"weights_only\s*=\s*False|pickle\.loads?\(", source) for source in sources)


def test_the_reader_stands_alone():
    """It runs as a script, without lavie on its path."""
    source = Path(unpickling.__file__).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(?:import|from) lavie", source, re.MULTILINE)
