"""The program ``svitkit``: its verbs, and what becomes of errors.

Exit codes: 0 done; 1 an error that one line explains; 2 wrong usage; 3 a finding (a gate missed, an invalid run, a
missing tool); 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
import warnings
from dataclasses import dataclass
from typing import Annotated

import typer

from svitkit import __version__
from svitkit.cli import bench, boards, learn, look, report, ship
from svitkit.errors import SvitError


@dataclass
class Session:
    """What holds for the whole command.

    Attributes:
        debug: whether unexpected errors show where they come from.
    """

    debug: bool = False


app = typer.Typer(
    name="svitkit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"svitkit {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error comes from.")] = False,
) -> None:
    """Compress a Spiking Vision Transformer, compile it for a board, and measure it there."""
    context.obj.debug = debug
    if not debug:  # what libraries warn of is for developers, not for users
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)


app.command("models")(look.models)
app.add_typer(boards.app, name="boards")
app.command("doctor")(look.doctor)
app.command("inspect")(look.inspect)
app.command("train")(learn.train)
app.command("evaluate")(learn.evaluate)
app.command("compress")(learn.compress)
app.command("export")(ship.export)
app.command("build")(ship.build)
app.command("sdk")(ship.sdk)
app.command("bench")(bench.bench)
app.command("deploy")(ship.deploy)
app.command("report")(report.report)


def main() -> None:
    """Runs the command line of this process and exits."""
    session = Session()
    try:
        app(obj=session, prog_name="svitkit")
    except SvitError as error:
        fail(str(error))
    except OSError as error:
        if session.debug:
            raise
        fail(f"{error.filename or 'the system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if session.debug:
            raise
        fail(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())}. This is a defect of svitkit: please "
            "report it with the command, and with what 'svitkit --debug' followed by the same verb shows."
        )


def fail(message: str) -> None:
    """Says on stderr, in one line, what is wrong, and exits with 1."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)
