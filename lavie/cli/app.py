"""The `lavie` command: which verbs there are, and how every one of them ends."""

import importlib.metadata
import os
import platform
import signal
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter, Token

from lavie.errors import LavieError
from lavie.version import lavie_version

DONE, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
"""Exit codes."""

VERBS = {
    "generate": ("lavie.cli.generate:generate", "Make videos from prompts."),
    "plan": ("lavie.cli.plan:plan", "Predict memory and time of a video, and make it fit."),
    "train": ("lavie.cli.train:train", "Train a model from a recipe."),
    "convert": ("lavie.cli.convert:convert", "Turn published weights into lavie's, and back."),
    "check": ("lavie.cli.check:check", "Say what is wrong with spec files, fault by fault."),
    "show": ("lavie.cli.show:show", "Draw what a spec builds: parts, shapes, parameters, packages."),
    "verify": ("lavie.cli.verify:verify", "Compare this machine's numbers with recorded ones."),
    "plugins": ("lavie.cli.plugins:plugins", "List the installed plugins, and why any of them is broken."),
    "schema": ("lavie.cli.schema:schema", "Print the JSON Schema of a kind, for editors."),
}
"""Import path and one line of help for every verb."""


def _whole(kind: type, tokens: Sequence[Token]) -> int:
    (token,) = tokens
    try:
        return int(token.value)
    except ValueError:
        raise ValueError(f'"{token.value:.80}" is no whole number') from None


Whole = Annotated[int, Parameter(converter=_whole)]
"""A whole number of the command line, taken at its word: 1.5 is refused, not rounded."""


class UsageError(LavieError):
    """A command line that asks for nothing lavie can do."""


def app(verb: str = "") -> App:
    """Return the application; no verb is imported before it is used, and the one in use tells its own help."""
    root = App(
        name="lavie",
        help="Text-to-video latent diffusion from composable parts.",
        help_epilogue="Exit codes: 0 done, 1 failed, 2 bad input or usage, 130 interrupted, 143 terminated.",
        version=environment,
        version_format="plaintext",
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    for name, (path, line) in VERBS.items():
        root.command(path, name=name, help=None if name == verb else line)
    return root


def run(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code; mistakes of the user end in lines, not in a traceback."""
    verb = tokens[0] if tokens and not tokens[0].startswith("-") else ""
    call = app(verb)
    try:
        if tokens and tokens[0] not in {*VERBS, "--help", "-h", "--version"}:
            raise UsageError(f"unknown verb {tokens[0]!r:.80}.{_suggest(verb)} Verbs: {', '.join(VERBS)}.")
        result: Any = call(list(tokens), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else DONE
    except CycloptsError as error:
        error.verbose = False
        complain(f"lavie: {error}\nTry '{' '.join(('lavie', *verb.split(), '--help'))}'.")
        return BAD_INPUT
    except LavieError as error:
        complain(str(error))
        return FAILED if isinstance(error, MemoryError) else BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone; nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (OSError, MemoryError) as error:
        complain(f"{type(error).__name__}: {error}")
        return FAILED
    except Exception:
        traceback.print_exc()
        return FAILED


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    signal.signal(signal.SIGTERM, _terminate)
    _mend_streams()
    sys.exit(run(sys.argv[1:]))


def environment() -> str:
    """Describe what bug reports need to say, without importing anything heavy."""
    names = ("torch", "xformers", "numpy", "pydantic", "av")
    lines = [f"lavie {lavie_version()}", f"python {platform.python_version()}"]
    lines += [f"{name} {_version_of(name)}" for name in names]
    lines += [f"platform {platform.platform()}", f"cpu threads {_num_threads()}"]
    lines.append(f"nvidia device {'present' if Path('/dev/nvidia0').exists() else 'none found'}")
    lines.append(f"attention {os.environ.get('LAVIE_ATTENTION') or 'sdpa'}")
    return "\n".join(lines)


def say(text: str) -> None:
    """Write a line of result to stdout."""
    print(printable(text))


def complain(text: str) -> None:
    """Write a line about a fault to stderr."""
    print(printable(text), file=sys.stderr)


def printable(text: str) -> str:
    """Return a text fit for a terminal: control characters and lone surrogates as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _suggest(verb: str) -> str:
    from lavie.faults import suggest

    return suggest(verb, VERBS)


def _mend_streams() -> None:
    """Open closed outputs on nothing, and let characters that an encoding lacks go out as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (lasts as long as the process)
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _num_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
