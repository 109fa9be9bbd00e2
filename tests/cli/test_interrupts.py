"""Ctrl-C, SIGTERM and SIGHUP at every moment: one line, 128 and the signal's number, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from trimoe.cli.main import main

pytestmark = pytest.mark.slow

# The real command, to which Ctrl-C happens when module number N is looked for: the same place every time.
AT_AN_IMPORT = """
import os, signal, sys
from trimoe.cli.main import main
left = int(sys.argv.pop(1))
class Finder:
    def find_spec(self, *_):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.exit(main())
"""

# Commands that are interrupted where it is hard to notice.
COMMANDS = """
import atexit, ctypes, os, signal, sys, time
from pathlib import Path
from trimoe.cli import interrupts, render
from trimoe.cli.app import app
from trimoe.cli.main import main
from trimoe.cli.options import JsonOption

def ctrl_c(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)

class Dying:
    def __del__(self):
        ctrl_c()

@app.command()
def work() -> None:
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        print("in order", flush=True)

@app.command()
def importing(folder: Path) -> None:
    lines = "import __main__", "try:", "    __main__.ctrl_c()", "except:", "    pass"
    (folder / "careless.py").write_text("\\n".join(lines))
    sys.path.insert(0, str(folder))
    import careless
    time.sleep(60)

@app.command()
def unraisable() -> None:
    Dying()
    time.sleep(60)

@app.command()
def another_error() -> None:
    try:
        ctrl_c()
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error

@app.command()
def native() -> None:
    interrupts._PATIENCE_S = 0.1
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    library.pthread_mutex_lock(mutex)
    print("started", flush=True)
    library.pthread_mutex_lock(mutex)

@app.command()
def result(json_output: JsonOption = False) -> None:
    render.json.dumps = ctrl_c
    render.print_json({})

@app.command()
def late() -> None:
    atexit.register(ctrl_c)

@app.command()
def after_the_work() -> None:
    signal.signal = ctrl_c  # the handlers go back

if __name__ == "__main__":
    sys.exit(main())
"""


def started(*arguments: str, prepare: Callable[[], object] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMANDS, *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare
    )
    assert process.stdout is not None
    if arguments[0] in ("work", "native"):
        assert process.stdout.readline() == "started\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=45)
    return process.returncode, out, err


@pytest.mark.parametrize("n", [1, 2, 10, 60, 130, 220, 300, 345, 400, 700, 1100, 1500, 1900, 2300])
def test_while_modules_are_imported(n: int) -> None:
    """The command line's own up to 342, torch's and transformers' then."""
    command = [
        sys.executable,
        "-c",
        AT_AN_IMPORT,
        str(n),
        "generate",
        "--no-measure",
        "--max-new-tokens",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "trimoe: interrupted\n")


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "terminated"),
        (signal.SIGHUP, "hung up"),
    ],
)
def test_signals_that_stop(number: signal.Signals, word: str) -> None:
    process = started("work")
    process.send_signal(number)
    assert ended(process) == (128 + number, "in order\n", f"trimoe: {word}\n")


def test_what_is_ignored_stays_ignored() -> None:
    process = started("work", prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "in order\n", "trimoe: terminated\n")


@pytest.mark.parametrize(
    "command", ["unraisable", "another-error", "result --json", "after-the-work", "late"]
)
def test_where_it_is_easily_lost(command: str) -> None:
    assert ended(started(*command.split())) == (130, "", "trimoe: interrupted\n")


def test_an_interrupt_that_a_module_swallows_ends_the_command_all_the_same(
    tmp_path: os.PathLike[str],
) -> None:
    assert ended(started("importing", str(tmp_path))) == (130, "", "trimoe: interrupted\n")


def test_native_code_that_does_not_come_back() -> None:
    process = started("native")
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "trimoe: interrupted\n")


def test_the_caller_of_main_gets_its_handlers_back() -> None:
    def handlers() -> list[object]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        return [*map(signal.getsignal, numbers), sys.unraisablehook, signal.set_wakeup_fd(-1)]

    before = handlers()
    assert main(["--version"]) == 0
    assert main(["docto"]) == 2
    assert handlers() == before
