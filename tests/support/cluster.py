"""A sandbox for tests: started once, on free ports, gone when the tests are."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from headwater_sandbox.demo.sandboxed import Sandbox, parse_sandbox
from headwater_sandbox.demo.tokens import make_token

UP_DEADLINE_S = 180.0
DOWN_DEADLINE_S = 60.0
KUBECTL_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Cluster:
    """A running sandbox and short ways to use it."""

    sandbox: Sandbox

    @property
    def gateway(self) -> str:
        return self.sandbox.gateways[0]

    @property
    def page(self) -> str:
        return self.gateway.replace("ws", "http", 1)

    def token(self, room: str, identity: str, **options: object) -> str:
        """A token to join; `options` as of `make_token`."""
        key, secret = self.sandbox.api_key, self.sandbox.api_secret
        return make_token(key, secret, room, identity, time.time(), **options)  # type: ignore[arg-type]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl; AssertionError with its stderr where it fails."""
        done = self.try_kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def try_kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        kubectl = Path(sys.executable).with_name("kubectl")
        command = [str(kubectl), "--kubeconfig", str(self.sandbox.kubeconfig), *arguments]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=KUBECTL_DEADLINE_S, check=False
        )


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_cluster(options: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """`headwater sandbox up` as a child of ours; it ends with us, even if we are killed."""
    name = f"test-{secrets.token_hex(3)}"
    bound = ["--die-with", str(os.getpid())]
    arguments = ["sandbox", "up", "--json", "--name", name, "--port", str(free_port()), *bound, *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater_cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            yield Cluster(parse_sandbox(name, _first_json(process, process.stdout, log), owned=True))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(DOWN_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _first_json(process: subprocess.Popen[str], out: IO[str], log: IO[str]) -> dict[str, object]:
    """The JSON object that the sandbox prints once it is up; AssertionError with its log otherwise."""
    killer = threading.Timer(UP_DEADLINE_S, process.kill)
    killer.start()
    text = ""
    try:
        for line in out:
            text += line
            with contextlib.suppress(ValueError):
                found: dict[str, object] = json.loads(text)
                return found
    finally:
        killer.cancel()
    log.seek(0)
    raise AssertionError(f"the sandbox did not start: {text}\n{log.read()[-4000:]}")
