"""`headwater simulate`: what the autoscaler would have done with recorded load, or with a made-up day."""

import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer

_SAMPLES: Final = 3000


def simulate(  # noqa: PLR0917 (typer's options)
    file: Annotated[
        Path | None,
        typer.Argument(help="Recorded load, CSV or JSON Lines: time, region, participants."),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="YAML with an SFUCluster, and Meetings if you like. Default: three regions."),
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, max=31, help="Without FILE: so many days.")] = 1.0,
    meetings: Annotated[int, typer.Option(min=1, max=100_000, help="Without FILE: so many meetings.")] = 1500,
    announced: Annotated[
        float, typer.Option(min=0, max=1, help="Without FILE: the share of meetings known ahead.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 1,
    step: Annotated[float, typer.Option(min=1, max=600, help="Seconds between decisions.")] = 15.0,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts and every decision.")] = None,
) -> None:
    """Replays load through the planner, without a cluster: nodes wanted against load, and why."""
    import yaml
    from headwater_api.model import InvalidResource
    from rich.console import Console

    from headwater_cli.simulate.chart import render_html
    from headwater_cli.simulate.demand import InvalidRecording
    from headwater_cli.simulate.report import read_input, render_table, summary_of
    from headwater_cli.simulate.run import Simulation

    try:
        fleet, demand = read_input(
            file, cluster, days=days, meetings=meetings, announced=announced, seed=seed
        )
    except (InvalidRecording, InvalidResource, OSError, yaml.YAMLError) as error:
        print(f"headwater: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    began, span_s = time.monotonic(), (demand.end - demand.start).total_seconds()
    outcome = Simulation(fleet, demand, seed=seed, step_s=step).run(sample_every_s=span_s / _SAMPLES)
    summary = summary_of(outcome, span_s, time.monotonic() - began)
    console = Console()
    console.print(render_table(fleet, outcome))
    for name, value in summary:
        console.print(f"{name}: {value}", highlight=False)
    if html is not None:
        load = "synthetic load" if file is None else file.name
        html.write_text(render_html(f"{fleet.metadata.name}: {load}", outcome, summary), encoding="utf-8")
        console.print(f"charts and decisions: {html}", highlight=False)
