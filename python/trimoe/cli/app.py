"""The commands: registers them, and says what `trimoe` alone and `trimoe --version` do."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.main import get_command

import trimoe
from trimoe.cli.bench import bench_app
from trimoe.cli.cache import cache_app
from trimoe.cli.calibrate import calibrate
from trimoe.cli.docstrings import restore_docstrings
from trimoe.cli.doctor import doctor
from trimoe.cli.generate import generate
from trimoe.cli.inspect import inspect
from trimoe.cli.ndp import ndp_app
from trimoe.cli.pack import pack
from trimoe.cli.policy import policy_app
from trimoe.cli.simulator import compare, plan, simulate
from trimoe.cli.trace import trace_app
from trimoe.cli.tree import prepare

__all__ = ["app", "command_tree"]

app = typer.Typer(name="trimoe", rich_markup_mode=None, pretty_exceptions_enable=False)
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
      trimoe doctor qwen3-30b-a3b       whether a model fits, and what bounds its speed
      trimoe generate --prompt "Once"   text from the model that ships with trimoe
      trimoe calibrate                  its speed, measured into a hardware profile
      trimoe inspect PATH               what a checkpoint holds, without loading it
      trimoe pack PATH --format int4    its experts converted ahead of the next start
      trimoe cache list                 packed experts kept on disk, and how to remove them
      trimoe bench layer --json         the speed of one layer against the machine's limits
      trimoe ndp validate               the DIMM emulator against formulas and published figures
      trimoe trace stats                which experts tokens chose, and how predictable that is
      trimoe simulate --system trimoe   how fast a system would be on hardware you don't own
      trimoe compare --batch 512        many systems on the same requests
      trimoe policy bench               how long a policy takes to decide
      trimoe policy gap                 a system's decisions against the best there are
      trimoe plan --model deepseek-v2   the best of them, its memory, and the gain of more hardware
    """
    if version:
        typer.echo(f"trimoe {trimoe.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def command_tree() -> Any:
    """The commands as click knows them, with what all of them share."""
    restore_docstrings(app)
    tree = get_command(app)
    prepare(tree)
    return tree
