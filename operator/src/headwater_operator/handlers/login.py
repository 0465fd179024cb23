"""kopf's credentials: the same as our own client's, read anew whenever kopf asks.

kopf's own logins either import another client library or dial a host name that needs cluster DNS.
"""

from collections.abc import Mapping
from typing import Any

import kopf
from headwater_dial.api_server import credentials


def register(registry: kopf.OperatorRegistry, environ: Mapping[str, str]) -> None:
    """Adds the login handler to the registry."""

    @kopf.on.login(id="login", registry=registry)
    async def on_login(**_: Any) -> kopf.ConnectionInfo:
        configuration = await credentials(environ)
        header = await configuration.get_api_key_with_prefix("BearerToken")
        scheme, _space, token = (header or "").rpartition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            scheme=scheme.capitalize() or None,
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )
