"""`headwater probe`."""

import asyncio
import json
import os
import secrets
import sys
import time
from dataclasses import asdict
from typing import Annotated, Final

import jwt
import typer

from headwater_cli.probe.judge import Limits, judge

_KEY: Final = "HEADWATER_API_KEY"
_SECRET: Final = "HEADWATER_API_SECRET"
_LIFE_S: Final = 600


def probe(
    url: Annotated[str, typer.Argument(help="The gateways' address: wss://, https://, ws:// or http://.")],
    *,
    room: Annotated[str, typer.Option(help="A room of the probe's own; default: a new one.")] = "",
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long to watch.")] = 8.0,
    connect: Annotated[float, typer.Option(help="Longest time to connect, s.")] = Limits.connect_s,
    first_frame: Annotated[float, typer.Option(help="Longest time to a picture, s.")] = Limits.first_frame_s,
    fps: Annotated[float, typer.Option(help="Fewest pictures a second.")] = Limits.frames_per_second,
    loss: Annotated[float, typer.Option(help="Most loss, percent.")] = Limits.loss_percent,
    as_json: Annotated[bool, typer.Option("--json", help="The measurements as JSON.")] = False,
) -> None:
    """Joins from where it runs, publishes picture and tone, watches them, and says whether all is well.

    The API key and its secret are read from HEADWATER_API_KEY and HEADWATER_API_SECRET. Exit code: 0 when
    all limits hold, 1 when one does not, 2 when it could not be tried. Made for CronJobs.
    """
    key, secret = os.environ.get(_KEY, ""), os.environ.get(_SECRET, "")
    if not key or not secret:
        typer.echo(f"headwater probe: set {_KEY} and {_SECRET} (they are not taken as arguments)", err=True)
        sys.exit(2)
    try:
        from headwater_cli.probe.client import probe as run
    except ModuleNotFoundError as missing:
        typer.echo(f"headwater probe: {missing.name} is missing: install headwater-cli[probe]", err=True)
        sys.exit(2)
    name = room or f"probe-{secrets.token_hex(4)}"

    def token(identity: str) -> str:
        now = int(time.time())
        video = {"room": name, "roomJoin": True, "roomCreate": True, "canPublish": True, "canSubscribe": True}
        claims = {"iss": key, "sub": identity, "nbf": now - 10, "exp": now + _LIFE_S, "video": video}
        return jwt.encode(claims, secret, algorithm="HS256")

    base = url.rstrip("/")
    base = base.replace("ws", "http", 1) if base.startswith("ws") else base
    measured = asyncio.run(run(base, name, token, seconds))
    limits = Limits(connect, first_frame, fps, loss)
    verdicts = judge(measured, limits)
    if as_json:
        report = asdict(measured) | {
            "ok": all(v.ok for v in verdicts),
            "verdicts": [asdict(v) for v in verdicts],
        }
        typer.echo(json.dumps(report, indent=2))
    else:
        for verdict in verdicts:
            typer.echo(f"{'ok  ' if verdict.ok else 'FAIL'}  {verdict.sentence}")
        if measured.watch_address:
            typer.echo(f"      media over {measured.publish_address} and {measured.watch_address}")
    sys.exit(not all(verdict.ok for verdict in verdicts))
