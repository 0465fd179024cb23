"""Debian's simple-whip-client, run as it is: its signalling and media stack are GStreamer's."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

AUDIO = (
    "audiotestsrc is-live=true ! audioconvert ! audioresample ! queue ! opusenc !"
    " rtpopuspay pt=111 ssrc=1 ! queue ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111"
)
VIDEO = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1 !"
    " videoconvert ! queue ! vp8enc deadline=1 keyframe-max-dist=30 ! rtpvp8pay pt=96 ssrc=2 ! queue !"
    " application/x-rtp,media=video,encoding-name=VP8,payload=96"
)
# Debian 12 links the client to libsoup 2 and libnice, over its UPnP library, to libsoup 3; a process may hold
# only one of the two. Nothing here asks for UPnP: libnice gets a library that has none.
NO_UPNP = """
void *gupnp_simple_igd_thread_new(void) { return 0; }
unsigned long gupnp_simple_igd_get_type(void) { return 0; }
void gupnp_simple_igd_add_port(void) {}
void gupnp_simple_igd_remove_port_local(void) {}
"""


@dataclass
class WhipClient:
    """The running program."""

    process: asyncio.subprocess.Process
    log: Path

    def printed(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    async def interrupt(self) -> None:
        """Its Ctrl-C: it deletes its resource and ends."""
        self.process.send_signal(signal.SIGINT)
        await asyncio.wait_for(self.process.wait(), 15)


def _library(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is needed to run simple-whip-client")
    (folder / "no_upnp.c").write_text(NO_UPNP)
    made = folder / "libgupnp-igd-1.0.so.4"
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{made.name}", "-o", str(made)]
    subprocess.run([*command, str(folder / "no_upnp.c")], check=True, timeout=30)
    return folder


def need_whip_client() -> str:
    """The program. Skips where it is missing."""
    program = shutil.which("whip-client")
    if program is None:
        pytest.skip("simple-whip-client is not installed: run scripts/setup as root on Debian")
    return program


@asynccontextmanager
async def whip_client(url: str, token: str, folder: Path) -> AsyncIterator[WhipClient]:
    """Publish a voice and a picture to that endpoint while the block runs. Skips where it is missing."""
    program = need_whip_client()
    log = folder / "whip-client.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--url", url, "--token", token, "--disable-colors"),
            *("--audio", AUDIO, "--video", VIDEO),
            env={**os.environ, "LD_LIBRARY_PATH": str(_library(folder))},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        yield WhipClient(process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
