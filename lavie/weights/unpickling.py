"""Reading one `.pt` file in a process of its own: a script that `lavie.weights.pickled` runs, never imported by lavie.

It checks the zip directory, unpickles tensors and plain data only, and writes the tensors as a safetensors file, all
under limits of memory and time. What it found, or why it gave up, goes into a JSON report. Where only names and shapes
are asked for, no data is read and none written.
"""

import json
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

MAX_RECORDS = 100_000
MAX_PICKLE = 64 << 20
"""Bytes of the one pickle; those of published networks have less than 2 MB."""
SPARE = 768 << 20
"""Bytes of memory that may be used besides what the file's own size explains."""
CONTAINERS = ("ema", "model", "state_dict")
"""Names under which training scripts put the network, best first."""
INERT = (
    "argparse.Namespace",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
"""Bookkeeping of training scripts: read as objects that do nothing; the real classes are never looked up."""
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_RECORD = re.compile(
    r"data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id"
)


class Refused(Exception):  # noqa: N818 (a verdict, not an error)
    """Why a file is not read."""


class Inert:
    """Stands in for a class of which nothing is wanted; swallows arguments and state."""

    def __new__(cls, *_: object) -> "Inert":
        """Take anything."""
        return object.__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Keep nothing."""


def check_archive(path: Path, *, sums: bool = True) -> None:
    """Refuse anything but what `torch.save` writes: stored records under one name, none larger than the file says.

    With `sums` every record is read through and its checksum compared.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise Refused(
                "it is no zip archive of tensors; files of torch before 1.6 must be saved anew with a later one"
            )
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if len(records) > MAX_RECORDS:
            raise Refused(f"it has {len(records)} records; at most {MAX_RECORDS} are read")
        names = [record.filename for record in records]
        if len(set(names)) != len(names):
            raise Refused("two of its records have the same name")
        _check_names(names)
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
                raise Refused(f"record {record.filename!r:.80} is compressed; torch.save stores records as they are")
            if record.filename.endswith("/data.pkl") and record.file_size > MAX_PICKLE:
                raise Refused(f"its pickle has {record.file_size} bytes; at most {MAX_PICKLE} are read")
        if (total := sum(record.file_size for record in records)) > size:
            raise Refused(f"its records claim {total} bytes, but the file has {size}")
        for record in records if sums else ():
            _check_sum(archive, record)


def _check_names(names: list[str]) -> None:
    roots = {name.partition("/")[0] for name in names}
    if any(name.partition("/")[2].startswith(("code/", "constants.pkl")) for name in names):
        raise Refused("it holds a program (TorchScript), not just tensors")
    if len(roots) != 1 or (strange := [name for name in names if not _RECORD.fullmatch(name.partition("/")[2])]):
        what = "records under several names" if len(roots) != 1 else f"the record {strange[0]!r:.80}"
        raise Refused(f"it holds {what}, which torch.save does not write")
    if f"{min(roots)}/data.pkl" not in names:
        raise Refused("it holds no data.pkl, so it is no file of torch.save")


def _check_sum(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    """Read a record through: zipfile compares its CRC at the end."""
    with archive.open(record) as stream:
        while stream.read(1 << 20):
            pass


def state_of(loaded: object) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Return the key the network was under, its tensors, and what else the file holds."""
    import torch

    if not isinstance(loaded, dict):
        raise Refused(f"it holds a {type(loaded).__name__}, not a dict of tensors")
    container, state, other = "", loaded, {}
    for name in CONTAINERS:
        inner = loaded.get(name)
        if isinstance(inner, dict) and any(isinstance(value, torch.Tensor) for value in inner.values()):
            container, state = name, inner
            other = {str(key): _kind(value) for key, value in loaded.items() if key != name}
            break
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    other |= {str(key): _kind(value) for key, value in state.items() if not isinstance(value, torch.Tensor)}
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise Refused(f"it holds no tensors by name, neither itself nor under {', '.join(CONTAINERS)}")
    return container, tensors, other


def _kind(value: object) -> str:
    return "bookkeeping of the training script" if isinstance(value, Inert) else type(value).__name__


def check_tensors(tensors: dict[str, Any], size: int) -> None:
    """Refuse tensors that are not plain arrays inside their own storage."""
    import torch

    total = 0
    for name, tensor in tensors.items():
        plain = type(tensor) in {torch.Tensor, torch.nn.Parameter} and tensor.layout == torch.strided
        if not plain or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
            raise Refused(f"{name!r:.120} is no dense tensor")
        claimed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        if claimed > stored:
            raise Refused(f"{name!r:.120} claims {claimed} bytes, but {stored} are stored")
        total += claimed
    if total > 2 * size:
        raise Refused(f"its tensors claim {total} bytes, but the file has {size}")


def write(tensors: dict[str, Any], output: Path) -> None:
    """Write the tensors, each in memory of its own."""
    from safetensors.torch import save_file

    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    save_file(apart, output)


def read(path: Path, output: Path | None, limit: Callable[[int | None], None]) -> dict[str, Any]:
    """Turn the file into a safetensors file, and return what else is to be said about it.

    Without `output` that includes dtype and shape of every tensor, and no data is read. `limit` bounds memory from
    there on: little for the directory, what the file's size explains for the tensors.
    """
    size = path.stat().st_size
    limit(SPARE)
    try:
        check_archive(path, sums=output is not None)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise Refused(f"it is damaged: {error}") from None
    limit(None)
    import torch

    torch.set_num_threads(1)
    limit(SPARE + 2 * size)
    stand_ins = [(Inert, name) for name in INERT]
    try:
        # An open file, not its path: by the path's suffix torch would choose another reader than the one meant here.
        with (
            path.open("rb") as file,
            warnings.catch_warnings(),
            torch.serialization.safe_globals(stand_ins),  # type: ignore[arg-type]
            nullcontext() if output is not None else torch.serialization.skip_data(),
        ):
            warnings.simplefilter("ignore")
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to load without this protection; nobody should.
        wanted = _GLOBAL.search(str(error))
        what = f"asks for {wanted[1]:.120}" if wanted else "does more than hold tensors, or is damaged"
        raise Refused(f"its pickle {what}; only tensors and plain data are read") from None
    container, tensors, other = state_of(loaded)
    check_tensors(tensors, size)
    if output is not None:
        write(tensors, output)
        return {"container": container, "left_over": other}
    shapes = {name: [str(each.dtype).removeprefix("torch."), [*each.shape]] for name, each in tensors.items()}
    return {"container": container, "left_over": other, "tensors": shapes}


def limit_memory(spare: int | None) -> None:
    """Allow so many bytes beyond what is in use; None lifts the limit. Without effect where the system has none."""
    if sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = hard if spare is None else pages * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))


def limit_time(seconds: int) -> None:
    """End this process after so many seconds of work, and leave no core file behind."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds if hard < 0 else min(seconds, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(path: str, output: str, report: str, seconds: str, search_path: str) -> None:
    """Read `path` and write `output`, unless that is empty, and `report`."""
    limit_time(int(seconds))
    sys.path.extend(each for each in json.loads(search_path) if each not in sys.path)
    found: dict[str, Any]
    try:
        found = read(Path(path), Path(output) if output else None, limit_memory)
    except MemoryError:
        found = {"error": "it asks for more memory than its size explains"}
    except Refused as error:
        found = {"error": str(error)}
    except Exception as error:  # whatever hostile bytes make the parsers raise is one verdict: not read
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    Path(report).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
