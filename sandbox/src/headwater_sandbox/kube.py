"""The few reads of the API server that the sandbox needs, over one connection."""

import base64
import http.client
import json
import ssl
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

CALL_TIMEOUT_S: Final = 5.0


class Api:
    """A client with a sandbox's kubeconfig. Calls raise OSError or http.client.HTTPException."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        address = urlsplit(config["clusters"][0]["cluster"]["server"])
        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
        context = ssl.create_default_context(cadata=authority.decode())
        user = config["users"][0]["user"]
        # The ssl module reads certificates from files only; this one is gone at once.
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(base64.b64decode(user["client-certificate-data"]))
            pair.write(base64.b64decode(user["client-key-data"]))
            pair.flush()
            context.load_cert_chain(pair.name)
        self._connection = http.client.HTTPSConnection(
            address.hostname or "127.0.0.1", address.port, timeout=CALL_TIMEOUT_S, context=context
        )

    def close(self) -> None:
        self._connection.close()

    def text(self, path: str) -> str:
        try:
            self._connection.request("GET", path)
            response = self._connection.getresponse()
            body = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next call opens a new one
            raise
        if response.status >= 300:
            raise http.client.HTTPException(f"GET {path}: {response.status} {body[:200]}")
        return body

    def items(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.text(path))["items"]
        return found
