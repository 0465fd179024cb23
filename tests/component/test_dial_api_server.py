"""Connections to the API server end with their client, whatever the server does."""

import asyncio
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from headwater_dial.api_server import open_api
from kubernetes.aio.client import Configuration
from support.authority import Authority

CALLS = 4


@pytest.fixture
def hung_server(tmp_path: Path) -> Iterator[Configuration]:
    """Takes connections and says nothing over them, not even good-bye."""
    authority = Authority(tmp_path / "ca")
    authority.issue(tmp_path / "tls", "localhost", serial=1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls" / "tls.crt", tmp_path / "tls" / "tls.key")
    held: list[ssl.SSLSocket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    held.append(context.wrap_socket(server.accept()[0], server_side=True))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        configuration = Configuration(host=f"https://localhost:{server.getsockname()[1]}")
        configuration.ssl_ca_cert = str(tmp_path / "ca" / "ca.crt")
        configuration.client_session_kwargs = {"trust_env": False}
        yield configuration
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for connection in held:
        connection.close()


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.3])
def test_requests_that_are_given_up_leave_no_connection_behind(
    hung_server: Configuration, after_s: float
) -> None:
    async def ask() -> None:
        api = open_api(hung_server)
        request = await api.param_serialize("GET", "/api/v1/pods", header_params={})
        calls = [asyncio.create_task(api.call_api(*request)) for _ in range(CALLS)]
        await asyncio.wait(calls, timeout=after_s)
        for call in calls:
            assert not call.done()
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await api.close()  # type: ignore[no-untyped-call]

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asyncio.run(ask())
        gc.collect()
    assert [str(warning.message) for warning in said] == []
