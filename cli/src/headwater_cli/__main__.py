"""`headwater`, also as `python -m headwater_cli`.

Other packages add their commands by the entry points of the group `headwater.commands`, each a function that
takes the application: so the sandbox and its demo are there where they are installed, and only there.
"""

import signal
from importlib.metadata import entry_points
from typing import Final

import typer

from headwater_cli.doctor.command import doctor
from headwater_cli.plugin import cli as plugin
from headwater_cli.probe.command import probe
from headwater_cli.simulate.cli import simulate

COMMANDS: Final = "headwater.commands"


def build() -> typer.Typer:
    """The command `headwater` with all that is installed."""
    app = typer.Typer(
        name="headwater",
        help="Headwater: looks at an installation, explains what it does, and runs one on this machine.",
        no_args_is_help=True,
        pretty_exceptions_show_locals=False,  # they would show secrets
    )
    for entry in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name):
        entry.load()(app)
    plugin.register(app)
    app.command()(doctor)
    app.command()(simulate)
    app.command()(probe)
    return app


def main() -> None:
    # A shell's background jobs inherit an ignored SIGINT, and Python leaves it so. Here SIGINT is the
    # documented end of a whole cluster: it must reach us however we were started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    build()()


if __name__ == "__main__":
    main()
