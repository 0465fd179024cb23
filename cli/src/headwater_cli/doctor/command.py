"""`headwater doctor`."""

import asyncio
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from headwater_cli.doctor.diagnose import diagnose
from headwater_cli.doctor.facts import Facts, Finding, Level

_COLOUR: Final = {Level.ERROR: "red", Level.WARNING: "yellow", Level.OK: "green"}


def doctor(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where Headwater runs.")] = "headwater",
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, ~/.kube/config.")] = None,
    context: Annotated[str | None, typer.Option(help="A context of the kubeconfig.")] = None,
    url: Annotated[
        str, typer.Option(help="The gateways' public address; default: the chart's publicUrl.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Findings as a JSON array.")] = False,
) -> None:
    """Looks at an installation and says what is wrong and how to mend it. Changes nothing.

    Exit code: 0 when all is well, 1 with an error among the findings, 0 with warnings only.
    """
    findings = asyncio.run(_examine(namespace, kubeconfig, context, url))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    sys.exit(any(finding.level is Level.ERROR for finding in findings))


async def _examine(namespace: str, kubeconfig: Path | None, context: str | None, url: str) -> list[Finding]:
    from headwater_cli.doctor.observe import observe  # heavy: not for the other commands
    from headwater_cli.kube import KubeError, Reader

    def clock() -> datetime:
        return datetime.now(UTC)

    try:
        reader = await Reader.open(kubeconfig, context)
    except KubeError as error:
        return diagnose(Facts(namespace, clock(), api_error=str(error)))
    try:
        return diagnose(await observe(reader, namespace, url, clock))
    finally:
        await reader.close()


def _print(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        colour = _COLOUR[finding.level]
        table.add_row(f"[{colour}]{finding.level}[/]", finding.subject, finding.sentence)
        if finding.fix:
            table.add_row("", "", f"→ {finding.fix}")
    console = Console()
    console.print(table, markup=True, highlight=False)
    count = {level: sum(finding.level is level for finding in findings) for level in Level}
    console.print(f"{count[Level.ERROR]} errors, {count[Level.WARNING]} warnings, {count[Level.OK]} well")
