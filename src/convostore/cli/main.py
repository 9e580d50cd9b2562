"""The program ``convostore``."""

import sys
from collections.abc import Callable

import typer

from convostore.cli.demo import demo_command
from convostore.cli.doctoring import doctor_command
from convostore.cli.erasing import erase_command
from convostore.cli.reading import search_command, show_command
from convostore.cli.reporting import reported
from convostore.cli.servers import up_command
from convostore.cli.sync import sync_command
from convostore.cli.transfer import export_command, import_command
from convostore.cli.upkeep import indexes_command, stats_command


def build() -> typer.Typer:
    """Return the application with all its commands."""
    app = typer.Typer(
        name="convostore",
        help="The data layer for conversations of many tenants: bring them in, look at them, keep them well.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands: dict[str, Callable[..., None]] = {
        "demo": demo_command,
        "import": import_command,
        "export": export_command,
        "show": show_command,
        "search": search_command,
        "stats": stats_command,
        "up": up_command,
        "indexes": indexes_command,
        "sync": sync_command,
        "doctor": doctor_command,
        "erase": erase_command,
    }
    for name, command in commands.items():
        app.command(name)(command)
    return app


app = build()


def main() -> None:
    """Run the program."""
    try:
        with reported():  # what is printed may fail too
            app()
    except typer.Exit as end:
        sys.exit(end.exit_code)
