"""What the sandbox adds to the command `headwater`."""

import typer

from headwater_sandbox.commands import sandbox_app
from headwater_sandbox.demo.cli import demo, token


def register(app: typer.Typer) -> None:
    app.add_typer(sandbox_app, name="sandbox")
    app.command()(demo)
    app.command()(token)
