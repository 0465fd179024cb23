"""The gRPC channel to a node: with TLS where its Pod was made with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from headwater_api.certificates import AUTHORITY
from headwater_api.wellknown import ENV_NODE_TLS_DIR, NODE_TLS_NAME


class CannotVerify(ValueError):
    """The node asks for TLS and there is no authority to check it by; the text names the variable."""


class Dialer:
    """Opens channels. `tls_dir` holds the authority's certificate, which is read for each new channel."""

    def __init__(self, tls_dir: Path | None = None) -> None:
        self._tls_dir = tls_dir

    def open(self, address: str, options: Sequence[tuple[str, Any]], *, tls: bool) -> grpc.aio.Channel:
        """A channel to "ip:port". Raises CannotVerify."""
        if not tls:
            return grpc.aio.insecure_channel(address, options=options)
        # The certificate is one for all nodes: their addresses come and go.
        named = (*options, ("grpc.ssl_target_name_override", NODE_TLS_NAME))
        credentials = grpc.ssl_channel_credentials(self._authority())
        return grpc.aio.secure_channel(address, credentials, options=named)

    def _authority(self) -> bytes:
        if self._tls_dir is None:
            raise CannotVerify(f"{ENV_NODE_TLS_DIR} is not set, and the node's Pod was made with TLS")
        try:
            return (self._tls_dir / AUTHORITY).read_bytes()
        except OSError as error:
            raise CannotVerify(f"{ENV_NODE_TLS_DIR}: {error}") from None
