"""A media thread that stands still: the report says so, commands fail at once, and it recovers."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.deadline import until
from support.freeze_thread import frozen, threads_of

pytestmark = pytest.mark.timeout(60)

_CHILD = """
import ctypes, json, sys, time
ctypes.CDLL(None).prctl(1, 9)
from headwater_api.nodev1 import node_pb2
from headwater_sfu import _native
engine = _native.Engine(bind=["127.0.0.1:0"], advertise=None, node_id="n", region="eu", max_connections=9)
request = node_pb2.ApplyRequest(room_id="r", epoch=1, controller_id="c").SerializeToString()
while True:
    report = node_pb2.NodeReport.FromString(engine.report())
    began = time.monotonic()
    try:
        engine.apply(request)
        applied = True
    except TimeoutError:
        applied = False
    took = time.monotonic() - began
    print(json.dumps({"stalled_ms": report.media_stalled_ms, "applied": applied, "took": took}), flush=True)
    time.sleep(0.2)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


async def test_a_standing_media_thread_is_reported_while_control_answers(
    child: subprocess.Popen[str],
) -> None:
    well = told(child)
    assert well["applied"] and well["stalled_ms"] < 1000
    with contextlib.ExitStack() as stood:
        # Whichever of them has the room.
        for thread in threads_of(child.pid, "media"):
            stood.enter_context(frozen(thread))
        stuck = await until(
            lambda: (said := told(child))["stalled_ms"] >= 5000 and said, 30, "it is reported"
        )
        assert not stuck["applied"] and stuck["took"] < 0.5, "a command is not waited for"
    await until(lambda: told(child)["applied"], 10, "it works again")
    assert told(child)["stalled_ms"] < 1000
