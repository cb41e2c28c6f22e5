"""The commands, their arguments and exit codes: 0 done, 1 failed or refused, 2 usage, 3 absent,
4 unknown, 5 corrupt, 130 interrupted. Results go to standard output, everything else to standard
error.

What a command needs is imported when it runs, so that `--help` and `--version` are quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tvixstore import __version__
from tvixstore.cli.examples import epilog
from tvixstore.cli.find import find, load
from tvixstore.cli.keys import keys
from tvixstore.errors import ConfigError, StoreError

PROGRAM = "tvix-store"
FAILED = 1
INTERRUPTED = 130

app = typer.Typer(
    name=PROGRAM,
    help="A composable content-addressed store and caching proxy for Nix.",
    no_args_is_help=True,
    # It would start Python for every word that a shell completes. The package has scripts instead.
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
compose = typer.Typer(help="Look at compose files without running them.", no_args_is_help=True)
app.add_typer(compose, name="compose")
app.add_typer(keys, name="key")

_COMPOSE = (
    "The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or "
    "cache.nixos.org alone."
)
ComposeOption = Annotated[
    Path | None, typer.Option("--compose", metavar="FILE", help=_COMPOSE, show_default=False)
]
ComposeArgument = Annotated[
    Path | None, typer.Argument(metavar="FILE", help=_COMPOSE, show_default=False)
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def tvix_store(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Say which version it is."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def daemon(
    compose: ComposeOption = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Apply the compose file whenever it changes, as SIGHUP does."),
    ] = False,
) -> None:
    """Run the store, until SIGTERM or SIGINT. SIGHUP has the compose file read again."""
    path = find(compose)
    from tvixstore.cli.daemon import run
    from tvixstore.cli.leaving import leave
    from tvixstore.cli.reload import Watched

    watched = Watched.look(path) if watch and path is not None else None
    config = load(path)
    leave(run(config, path, watched))


@compose.command()
def check(
    file: ComposeArgument = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on a warning, too.")] = False,
) -> None:
    """Check a compose file: all its mistakes, and what else is to be said of it."""
    config = load(find(file))
    from tvixstore.compose import lint

    warnings = lint(config)
    for warning in warnings:
        typer.echo(f"{config.name}: warning: {warning}", err=True)
    if strict and warnings:
        count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
        raise ConfigError(f"{config.name}: {count}, and --strict lets none pass")
    typer.echo(f"{config.name}: ok")


@compose.command()
def show(file: ComposeArgument = None) -> None:
    """Show the tree of services that a compose file stands for, without its secrets."""
    config = load(find(file))
    from tvixstore.compose import lower
    from tvixstore.compose import show as render

    typer.echo(render(config.daemon, lower(config)))


def _register() -> None:
    """The commands that have a file of their own; they use what is above."""
    from tvixstore.cli.add_nar import add_nar
    from tvixstore.cli.cat import cat
    from tvixstore.cli.copy import copy
    from tvixstore.cli.explain import explain
    from tvixstore.cli.extract import extract
    from tvixstore.cli.forget import forget_absences
    from tvixstore.cli.import_ import import_
    from tvixstore.cli.info import info
    from tvixstore.cli.ls import ls
    from tvixstore.cli.nar import nar
    from tvixstore.cli.nar_hash import nar_hash
    from tvixstore.cli.pins import pin, pins, unpin
    from tvixstore.cli.top import top
    from tvixstore.cli.verify import verify

    app.command()(copy)
    app.command()(info)
    app.command()(top)
    app.command()(explain)
    app.command("import")(import_)
    app.command()(nar_hash)
    app.command()(nar)
    app.command()(ls)
    app.command()(cat)
    app.command()(extract)
    app.command()(add_nar)
    for command in (pin, unpin, pins, verify, forget_absences):
        app.command()(command)


def _give_examples(group: typer.Typer, above: str = "") -> None:
    for command in group.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        command.epilog = epilog(f"{above}{name}")
    for below in group.registered_groups:
        if below.typer_instance is not None:
            _give_examples(below.typer_instance, f"{above}{below.name} ")


_register()
_give_examples(app)


def main() -> None:
    """The entry point; ends the process."""
    # A terminal that cannot show a character of a tree still gets the rest of it.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        app(prog_name=PROGRAM)
    except StoreError as error:
        for line in str(error).splitlines():
            typer.echo(f"{PROGRAM}: {line}", err=True)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
