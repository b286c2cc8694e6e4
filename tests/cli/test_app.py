"""The command as a whole: light, with help for everything, and exit codes that mean what they say."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavie.cli import app as module
from lavie.cli.app import VERBS, environment, printable, run
from lavie.errors import PromptError

HELP = Path(__file__).parent / "help"
ROOT = Path(__file__).parents[2]
MAIN = "import sys; sys.argv[0] = 'lavie'; from lavie.cli import main; main()"


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Puts a function behind the verb `schema`."""

    def replace(function: Callable[[], object]) -> None:
        monkeypatch.setattr("lavie.cli.schema.schema", function)

    return replace


def test_help_imports_neither_torch_nor_plugins_nor_verbs() -> None:
    code = MAIN.replace("main()", "import atexit; atexit.register(lambda: print(*sys.modules)); main()")
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert "lavie.cli.app" in loaded
    assert not {"torch", "pydantic", "pluggy", "numpy", "av", "lavie.registry"} & loaded
    assert not {path.partition(":")[0] for path, _ in VERBS.values()} & loaded


@pytest.mark.parametrize("verb_name", ["", *VERBS])
def test_help_texts_are_as_recorded(
    verb_name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run with LAVIE_RECORD_HELP=1 to record them anew."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    assert run([verb_name, "--help"] if verb_name else ["--help"]) == 0
    text = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()).strip() + "\n"
    file = HELP / f"{verb_name or 'lavie'}.txt"
    if os.environ.get("LAVIE_RECORD_HELP"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_the_root_help_describes_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    for name, (_, line) in VERBS.items():
        assert name in out
        assert line.rstrip(".")[:40] in out


@pytest.mark.parametrize("tokens", [[name, "--nonsense"] for name in VERBS])
def test_every_verb_refuses_unknown_options_with_2(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tokens) == 2
    error = capsys.readouterr().err
    assert "--nonsense" in error
    assert f"Try 'lavie {tokens[0]} --help'." in error


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["chek"], "unknown verb 'chek'. Did you mean 'check'? Verbs: generate, plan, train, "),
        ([""], "unknown verb ''."),
        (["--hepl"], "unknown verb '--hepl'."),
        (["\x1b[31m"], r"unknown verb '\x1b[31m'."),
    ],
)
def test_unknown_verbs_end_with_2_and_a_suggestion(
    tokens: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tokens) == 2
    assert capsys.readouterr().err.startswith(expected)


def test_a_users_mistake_is_told_in_lines_without_a_traceback(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise PromptError("prompt: too long\nprompt: \x1b[2J")

    verb(fail)
    assert run(["schema"]) == 2
    assert capsys.readouterr().err == "prompt: too long\nprompt: \\x1b[2J\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device"), 1, "OSError: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_the_user_cannot_help_is_one_line_too(
    error: BaseException, code: int, said: str, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    verb(fail)
    assert run(["schema"]) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_ours_shows_its_traceback_and_fails(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("ours")

    verb(fail)
    assert run(["schema"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_a_verb_returns_is_the_exit_code(verb: Callable[..., None]) -> None:
    verb(lambda: 1)
    assert run(["schema"]) == 1


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_output_does_not_matter(closed: str) -> None:
    redirection = {"stdout": ">&-", "stderr": "2>&-"}[closed]
    code = MAIN.replace("main()", "sys.argv[1:] = ['schema', 'no-kind']; main()")
    command = f'exec "{sys.executable}" -c "$CODE" {redirection}'
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, env=os.environ | {"CODE": code}
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert ("unknown kind 'no-kind'" in done.stderr) == (closed == "stdout")


def test_what_an_encoding_lacks_goes_out_as_an_escape() -> None:
    code = MAIN.replace("main()", "from lavie.cli import app; app.run = lambda tokens: print('8×8 …'); main()")
    environ = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environ)
    assert (done.stdout, done.stderr) == ("8\\xd78 \\u2026\n", "")


def test_sigterm_ends_with_143() -> None:
    code = (
        "import time; from lavie.cli import app, main\n"
        "def run(tokens):\n    print('up', flush=True)\n    time.sleep(60)\n"
        "app.run = run; main()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGTERM)
    assert child.returncode == 143


def test_the_terminate_handler_exits_with_143() -> None:
    with pytest.raises(SystemExit) as caught:
        module._terminate(signal.SIGTERM, None)
    assert caught.value.code == 143


def test_version_reports_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.strip() == environment()
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["lavie", "python", "torch"]


def test_terminals_get_no_control_characters() -> None:
    assert printable("a\x1b[31mb\u202e\ud800\n東") == "a\\x1b[31mb\\u202e\\ud800\n東"
