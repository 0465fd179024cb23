"""Access to the API server."""

from collections.abc import Mapping
from typing import Final

from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

DEFAULT_KUBECONFIG: Final = "~/.kube/config"


async def open_api(environ: Mapping[str, str]) -> ApiClient:
    """The API server's address and credentials: the Pod's own, or $KUBECONFIG's current context.

    Raises kubernetes' ConfigException where neither is there.
    """
    configuration = Configuration()
    configuration.client_session_kwargs = {"trust_env": False}
    if environ.get("KUBERNETES_SERVICE_HOST") and not environ.get("KUBECONFIG"):
        kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG,
            client_configuration=configuration,
            persist_config=False,
        )
    return ApiClient(configuration=configuration)
