"""The command line: registers the subcommands, turns each way to fail into a line and an exit code.

Exit codes: 0 done, 1 failure, 2 bad input or bad arguments, 130 interrupted (Ctrl-C; 143 and 129 for SIGTERM
and SIGHUP), 141 the reader of our output went away. A traceback appears only with `--debug` (before the
subcommand) or `TRIMOE_DEBUG=1`.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from signal import SIGINT, Signals
from typing import Annotated, Any

import typer
from typer.main import get_command

import trimoe
from trimoe.cli.bench import bench_app
from trimoe.cli.calibrate import calibrate
from trimoe.cli.docstrings import restore_docstrings
from trimoe.cli.doctor import doctor
from trimoe.cli.generate import generate
from trimoe.cli.inspect import inspect
from trimoe.cli.interrupts import STOPS, Stops
from trimoe.cli.ndp import ndp_app
from trimoe.cli.pack import pack
from trimoe.cli.policy import policy_app
from trimoe.cli.simulator import compare, plan, simulate
from trimoe.cli.streams import discard_stdout, only_results, prepare_streams, say
from trimoe.cli.trace import trace_app
from trimoe.errors import FailureError, InputError, TrimoeError, nearest

__all__ = ["app", "command_tree", "run"]

app = typer.Typer(name="trimoe", rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(generate)
app.command()(doctor)
app.command()(calibrate)
app.add_typer(bench_app, name="bench")
app.command()(inspect)
app.command()(pack)
app.add_typer(ndp_app, name="ndp")
app.add_typer(trace_app, name="trace")
app.command()(simulate)
app.command()(compare)
app.add_typer(policy_app, name="policy")
app.command()(plan)

# Unknown options, missing arguments, bad values: older versions of typer have no public name for their base.
_UsageError: Any = typer.BadParameter.__bases__[0]
_EXIT_BROKEN_PIPE = 141
_COMPLETION = "_TRIMOE_COMPLETE"


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
        typer.echo(f"trimoe {trimoe.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@dataclass(frozen=True)
class _End:
    """How a command ended; line: for standard error; error: what `--debug` shows the traceback of."""

    exit_code: int
    line: str = ""
    error: BaseException | None = None


def run(arguments: Sequence[str], *, is_program: bool = False) -> int:
    """Run a command line and return its exit code. is_program: it is what the process is for."""
    prepare_streams()
    with Stops(impatient=is_program) as stops:
        end = _end_of(arguments, stops)
    if end.error is not None:
        traceback.print_exception(end.error)
    if end.line and _COMPLETION not in os.environ:  # nothing between a shell and its Tab
        say(f"trimoe: {end.line}")
    return end.exit_code


def command_tree() -> Any:
    """The commands as click knows them; with `--json`, only results reach standard output."""
    restore_docstrings(app)
    tree = get_command(app)
    _prepare(tree)
    return tree


def _prepare(command: Any) -> None:
    for one in getattr(command, "commands", {}).values():
        _prepare(one)
    for parameter in command.params:
        if "--json" in parameter.opts:
            command.callback = _guarded(command.callback, parameter.name)
        _hide_older_names(parameter)


def _hide_older_names(parameter: Any) -> None:
    """Of an option's long names help shows the first; the others are older, and go on working."""
    older = [name for name in parameter.opts if name.startswith("--")][1:]
    record = parameter.get_help_record

    def shown(context: typer.Context) -> Any:
        every, parameter.opts = parameter.opts, [name for name in parameter.opts if name not in older]
        try:
            return record(context)
        finally:
            parameter.opts = every

    if older:
        parameter.get_help_record = shown


def _guarded(callback: Callable[..., Any], switch: str) -> Callable[..., Any]:
    @wraps(callback)
    def guarded(**values: Any) -> Any:
        if not values[switch]:
            return callback(**values)
        with only_results():
            return callback(**values)

    return guarded


def _end_of(arguments: Sequence[str], stops: Stops) -> _End:
    debug = False
    try:
        exit_code = 0
        try:
            # Typer's own runner prints errors its way and hides Ctrl-C; these are the steps that it wraps.
            tree = command_tree()
            if _COMPLETION in os.environ:  # a shell asks what could come next
                tree.main(args=list(arguments), prog_name="trimoe")
            with tree.make_context("trimoe", list(arguments)) as context:
                debug = bool(context.params["debug"])
                tree.invoke(context)
        except typer.Exit as stop:
            exit_code = stop.exit_code
        except SystemExit as stop:  # after what has to do with completion
            exit_code = int(stop.code or 0)
        except _UsageError as error:
            # A group without a command hands over its help, which is what was wanted.
            if not error.format_message().startswith("Usage:"):
                raise
            typer.echo(error.format_message())
        sys.stdout.flush()
        return _End(exit_code)
    except BrokenPipeError:
        discard_stdout()
        return _End(_EXIT_BROKEN_PIPE)
    except (Exception, KeyboardInterrupt) as error:
        end = _end_by(error, stops.number)
        _flush_what_there_is()
        return _End(end.exit_code, end.line, error if debug else None)


def _end_by(error: BaseException, signal: int | None) -> _End:
    if isinstance(error, KeyboardInterrupt) or signal is not None:  # a library may have made another of it
        number = signal or SIGINT
        return _End(128 + number, STOPS[Signals(number)])
    known = _as_trimoe_error(error)
    if known is not None:
        return _End(known.exit_code, f"error: {known}")
    message = " ".join(str(error).split())
    hint = "try `trimoe --debug ...` for the traceback"
    return _End(1, f"internal error: {type(error).__name__}: {message}; {hint}")


def _flush_what_there_is() -> None:
    """Before the line on standard error, what standard output still holds."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()


def _as_trimoe_error(error: BaseException) -> TrimoeError | None:
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
    context = usage_error.ctx
    path = context.command_path if context else "trimoe"
    message, hint = usage_error.format_message().rstrip("."), f"`{path} --help`"
    unknown = re.match("No such command '(.*?)'", message, re.DOTALL)
    if unknown:
        hint = f"`{path} {nearest(unknown[1], context.command.commands)}`, or {hint}"
    return InputError(expected="arguments that the command knows", got=message, hint=hint)
