"""Runs a command line and turns each way to fail into a line and an exit code.

Exit codes: 0 done, 1 failure, 2 bad input or bad arguments, 130 interrupted (Ctrl-C; 143 and 129 for SIGTERM
and SIGHUP), 141 the reader of our output went away. A traceback appears only with `--debug` (before the
subcommand) or `TRIMOE_DEBUG=1`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from signal import SIGINT, Signals
from typing import Any

import typer

from trimoe.cli.app import command_tree
from trimoe.cli.interrupts import STOPS, Stops
from trimoe.cli.streams import discard_stdout, prepare_streams, say
from trimoe.errors import FailureError, InputError, TrimoeError

__all__ = ["run"]

# Unknown options, missing arguments, bad values: older versions of typer have no public name for their base.
_UsageError: Any = typer.BadParameter.__bases__[0]
_EXIT_BROKEN_PIPE = 141
_COMPLETION = "_TRIMOE_COMPLETE"


@dataclass(frozen=True)
class _End:
    """How a command ended; line: for standard error; error: what `--debug` shows the traceback of."""

    exit_code: int
    line: str = ""
    error: BaseException | None = None


def run(arguments: Sequence[str], *, is_program: bool = False) -> int:
    """Run a command line and return its exit code. is_program: it is what the process is for."""
    prepare_streams()
    stops = Stops(impatient=is_program)
    try:
        with stops:
            end = _end_of(arguments, stops)
    except KeyboardInterrupt as error:  # after the work, before the handlers were back
        end = _end_by(error, stops.number)
    if end.error is not None:
        traceback.print_exception(end.error)
    if end.line and _COMPLETION not in os.environ:  # nothing between a shell and its Tab
        say(f"trimoe: {end.line}")
    return end.exit_code


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
    return InputError(expected="arguments that the command knows", got=message, hint=hint)
