"""The command `headwater`."""

import typer
from headwater_cli.doctor.command import doctor
from headwater_cli.probe.command import probe

from headwater_sandbox.commands import sandbox_app
from headwater_sandbox.plugin import cli as plugin
from headwater_sandbox.simulate import cli as simulation

app = typer.Typer(
    name="headwater",
    help="Headwater on this machine: a whole cluster without containers, a demo on it, and access tokens.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they would show secrets
)
app.add_typer(sandbox_app, name="sandbox")
plugin.register(app)
app.command()(doctor)
simulation.register(app)
app.command()(probe)

try:
    from headwater_sandbox.demo.cli import register
except ModuleNotFoundError as missing:
    if missing.name != "headwater_sandbox.demo.cli":
        raise
else:
    register(app)
