"""`lavie plugins`: what is installed, from where, and what is broken and why; each plugin in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lavie.cli.app import DONE, FAILED, printable, say
from lavie.errors import PluginError
from lavie.plugins import Announced, Owner, announced, before_import, classes_of, import_seconds, load, pinned
from lavie.registry import LAVIE, Claim, claim, disputes

GRACE_SECONDS = 30.0
"""What a child gets on top of the time for the import itself, to start Python and answer."""


@dataclass(frozen=True)
class Row:
    """One plugin and what became of it."""

    owner: Owner
    status: str
    claims: tuple[Claim, ...] = ()
    cause: str = ""


def plugins(*, no_import: bool = False, strict: bool = False) -> int:
    """List the installed plugins, and why any of them is broken.

    Each is imported in a process of its own, so that none can harm the listing or another. The status is ok, broken
    (fails to import or registers nonsense), conflict (claims a name that is taken, or twice), incompatible (needs
    another version of lavie) or skipped (left out by LAVIE_PLUGINS).

    Parameters
    ----------
    no_import
        Only list them, from the metadata of their packages.
    strict
        Exit with 1 if any plugin is not ok.
    """
    everything = announced()
    rows = [Row(each.owner, "installed") for each in everything] if no_import else _examine(everything)
    if not rows:
        say("no plugins installed (no package has an entry point in the group 'lavie')")
    else:
        _print(rows)
    return FAILED if strict and any(row.status not in {"ok", "installed", "skipped"} for row in rows) else DONE


def report(name: str, distribution: str, answer: str) -> None:
    """Import one plugin and write what it claims, or what is wrong with it, to a file; runs in the child process."""
    each = next(e for e in announced() if (e.owner.entry_point, e.owner.distribution) == (name, distribution))
    said: dict[str, object]
    try:
        said = {"claims": [asdict(claim(cls)) for cls in classes_of(load(each))]}
    except PluginError as error:
        said = {"cause": str(error)}
    draft = Path(f"{answer}.part")
    draft.write_text(json.dumps(said), encoding="utf-8")
    draft.rename(answer)


def _examine(everything: Sequence[Announced]) -> list[Row]:
    """Import what LAVIE_PLUGINS lets through, each alone, and judge all claims together."""
    chosen = pinned(everything)
    problems = {problem.owner: problem for problem in before_import(chosen)}
    alone = [each for each in chosen if each.owner not in problems]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        rows = {row.owner: row for row in pool.map(_import_alone, alone)}
    rows |= {owner: Row(owner, problem.status, cause=problem.cause) for owner, problem in problems.items()}
    skipped = [Row(each.owner, "skipped", cause="left out by LAVIE_PLUGINS") for each in everything]
    rows |= {row.owner: row for row in skipped if row.owner not in rows}
    return [rows[each.owner] for each in everything] if not alone else _judge([rows[e.owner] for e in everything])


def _judge(rows: list[Row]) -> list[Row]:
    import lavie.builtin

    own = tuple(claim(cls) for cls in classes_of(lavie.builtin))
    left_out, contested = disputes([(Owner(LAVIE), own), *((row.owner, row.claims) for row in rows)])
    judged = []
    for index, row in enumerate(rows, start=1):
        if problem := left_out.get(index):
            row = replace(row, status=problem.status, cause=problem.cause)
        for (kind, name), owners in contested.items():
            if row.owner in owners and row.status != "conflict":
                others = " and by ".join(str(owner) for owner in owners if owner != row.owner)
                row = replace(row, status="conflict", cause=f"{kind} {name!r} is also claimed by {others}")
        judged.append(row)
    return judged


def _import_alone(each: Announced) -> Row:
    """Import one plugin in a child process, and end it when its time is over."""
    seconds = import_seconds()
    with tempfile.TemporaryDirectory(prefix="lavie-plugins-") as folder:
        answer = Path(folder) / "answer.json"
        words = [each.owner.entry_point, each.owner.distribution, str(answer)]
        code = f"import sys; sys.path[:] = {sys.path!r}; from lavie.cli.plugins import report; report(*sys.argv[1:])"
        child = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            child.wait(timeout=seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            if not answer.exists():
                return Row(each.owner, "broken", cause=f"cannot be imported: took more than {seconds:g} seconds")
        finally:
            _end(child)
        if not answer.exists():
            cause = f"cannot be imported: it ended its process, exit code {child.returncode}"
            return Row(each.owner, "broken", cause=cause)
        said = json.loads(answer.read_text(encoding="utf-8"))
    if "cause" in said:
        return Row(each.owner, "broken", cause=said["cause"])
    return Row(each.owner, "ok", tuple(Claim(**wanted) for wanted in said["claims"]))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started."""
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()


def _print(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=500)
    table = Table("name", "distribution", "version", "status", "components", "cause", box=None, pad_edge=False)
    for row in rows:
        components = ", ".join(f"{each.kind}:{each.name}" for each in row.claims)
        cells = (row.owner.entry_point, row.owner.distribution, row.owner.version, row.status, components, row.cause)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
