"""The entry point `trimoe`: registers the subcommands, turns each way to fail into a line and an exit code.

Exit codes: 0 done, 1 failure, 2 bad input or bad arguments, 130 interrupted (Ctrl-C), 141 the reader of our
output went away. A traceback appears only with `--debug` (before the subcommand) or `TRIMOE_DEBUG=1`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from trimoe import __version__
from trimoe.cli.bench import bench_app
from trimoe.cli.cache import cache_app
from trimoe.cli.calibrate import calibrate
from trimoe.cli.doctor import doctor
from trimoe.cli.generate import generate
from trimoe.cli.inspect import inspect
from trimoe.cli.ndp import ndp_app
from trimoe.cli.pack import pack
from trimoe.cli.policy import policy_app
from trimoe.cli.simulator import compare, plan, simulate
from trimoe.cli.trace import trace_app
from trimoe.errors import FailureError, InputError, TrimoeError

__all__ = ["app", "main"]

app = typer.Typer(name="trimoe", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(generate)
app.command()(doctor)
app.command()(calibrate)
app.add_typer(bench_app, name="bench")
app.command()(inspect)
app.command()(pack)
app.add_typer(cache_app, name="cache")
app.add_typer(ndp_app, name="ndp")
app.add_typer(trace_app, name="trace")
app.command()(simulate)
app.command()(compare)
app.add_typer(policy_app, name="policy")
app.command()(plan)

# Unknown options, missing arguments, bad values: older versions of typer have no public name for their base.
_UsageError = typer.BadParameter.__bases__[0]
_EXIT_INTERRUPTED = 130
_EXIT_BROKEN_PIPE = 141


@app.callback(invoke_without_command=True)
def _trimoe(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="TRIMOE_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Run Mixture-of-Experts models with the experts where they run best.

    \b
    Examples:
      trimoe doctor                     what this machine has, and what is used of it
      trimoe generate --prompt "Once"   text from the model that ships with trimoe
      trimoe calibrate                  its speed, measured into a hardware profile
      trimoe inspect PATH               what a checkpoint holds, without loading it
      trimoe pack PATH --format int4    its experts converted ahead of the next start
      trimoe cache list                 packed experts kept on disk, and how to remove them
      trimoe bench layer --json         the speed of one layer against the machine's limits
      trimoe ndp validate               the DIMM emulator against what is known
      trimoe trace stats                which experts tokens chose, and how well that is foreseen
      trimoe simulate --system trimoe   what a system would do on a machine that one need not have
      trimoe compare --batch 512        many systems on the same requests
      trimoe policy bench               how long a policy takes to decide
      trimoe policy gap                 a system's decisions against the best there are
      trimoe plan --model deepseek-v2   the best of them, its memory, and what more hardware would bring
    """
    if version:
        typer.echo(f"trimoe {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (`sys.argv` by default) and return its exit code."""
    _prepare_streams()
    debug, exit_code = False, 0
    try:
        try:
            # Typer's own runner prints errors its way and hides Ctrl-C; these are the steps that it wraps.
            command, words = get_command(app), sys.argv[1:] if arguments is None else arguments
            with command.make_context("trimoe", list(words)) as context:
                debug = bool(context.params["debug"])
                command.invoke(context)
        except typer.Exit as stop:
            exit_code = stop.exit_code
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return _EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return _report("interrupted", _EXIT_INTERRUPTED, debug)
    except Exception as error:
        known = _as_trimoe_error(error)
        if known is not None:
            return _report(f"error: {known}", known.exit_code, debug)
        message = " ".join(str(error).split())
        hint = "try `trimoe --debug ...` for the traceback"
        return _report(f"internal error: {type(error).__name__}: {message}; {hint}", 1, debug)
    return exit_code


def _prepare_streams() -> None:
    """Make output safe to write to: closed streams lead nowhere, and a path need not be valid UTF-8."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # The shell's `>&-` closes a stream before Python starts.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _as_trimoe_error(error: Exception) -> TrimoeError | None:
    """The error as one line with a hint; None for what only a bug can explain."""
    if isinstance(error, TrimoeError):
        return error
    if isinstance(error, _UsageError):
        return _as_input_error(error)
    if isinstance(error, MemoryError):
        hint = "a smaller model or batch; `trimoe doctor` shows what is available"
        return FailureError(expected="enough memory", got="none left", hint=hint)
    if isinstance(error, OSError):
        hint = "another path, or more room on the disk; `trimoe --debug ...` shows where it happened"
        return FailureError(expected="the system to do as asked", got=str(error), hint=hint)
    return None


def _as_input_error(usage_error: Any) -> InputError:
    path = usage_error.ctx.command_path if usage_error.ctx else "trimoe"
    message = usage_error.format_message().rstrip(".")
    # A group that was called bare hands over its whole help, which the hint names.
    got = "no arguments" if message.startswith("Usage:") else message
    return InputError(expected="arguments that the command knows", got=got, hint=f"`{path} --help`")


def _report(line: str, exit_code: int, debug: bool) -> int:
    """Say it on standard error, after what standard output still holds; the exit code for convenience."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"trimoe: {line}\n")
    return exit_code


def _discard_stdout() -> None:
    """Point standard output nowhere, or the interpreter fails again when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
