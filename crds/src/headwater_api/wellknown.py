"""Names that more than one program relies on: labels, ports, environment, API group."""

from typing import Final

GROUP: Final = "headwater.dev"
VERSION: Final = "v1alpha1"

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_CLUSTER: Final = "headwater.dev/cluster"
LABEL_REGION: Final = "headwater.dev/region"
MANAGED_BY: Final = "headwater"
# On an SFU Pod: "true" while it serves or may serve; the PodDisruptionBudget selects by it.
LABEL_SERVES: Final = "headwater.dev/serves"
# On an SFU Pod: the hash of what it was made from.
LABEL_TEMPLATE: Final = "headwater.dev/template"
# On an SFU Pod: "true" asks for its drain; removed, the node returns to service.
ANNOTATION_DRAIN: Final = "headwater.dev/drain"
# On an SFU Pod, by the operator: what becomes of it, as one sentence.
ANNOTATION_STATE: Final = "headwater.dev/state"
# On an SFU Pod: its name, for the Service that is the Pod's own.
LABEL_NODE: Final = "headwater.dev/node"
# On an SFU Pod: the exposure mode that it was made with.
ANNOTATION_EXPOSURE: Final = "headwater.dev/exposure"
# On an SFU Pod, by the operator: where clients reach it beside its own address; ip:port,ip:port.
ANNOTATION_EXTERNAL: Final = "headwater.dev/external-addresses"
# Exposure modes in which clients have no use for the Pod's own address: it serves once it has another.
EXPOSED_ELSEWHERE: Final = frozenset(("HostPort", "NodePort", "LoadBalancer"))
# On a Kubernetes node: its machine is about to go. The value is told as the reason.
ANNOTATION_TERMINATION: Final = "headwater.dev/termination-notice"
COMPONENT_SFU: Final = "sfu-node"
COMPONENT_GATEWAY: Final = "gateway"
COMPONENT_OPERATOR: Final = "operator"
COMPONENT_TURN: Final = "turn-node"
# Of a TURN Pod: digest of what it was rendered from. Another one means: replace it.
ANNOTATION_REVISION: Final = "headwater.dev/revision"

PORT_SIGNAL: Final = 7880  # gateway: HTTP and WebSocket for clients
PORT_MEDIA: Final = 7882  # SFU node: UDP, clients and relay links
PORT_NODE_GRPC: Final = 7900  # SFU node: commands and events
PORT_GATEWAY_TLS: Final = 7881  # gateway: other gateways, by TLS
PORT_ADMIN: Final = 9090  # every program: /healthz /readyz /metrics; SFU node also /status.json
PORT_TURN: Final = 3478  # TURN node: UDP and TCP, clients
PORT_TURN_TLS: Final = 443  # TURN node: TLS, clients; where privileged ports are closed to it, the next one
PORT_TURN_TLS_HIGH: Final = 5349
PORT_TURN_COMMANDS: Final = 7901  # TURN node: the operator's commands, by TLS
PORT_TURN_ADMIN: Final = 9091  # TURN node: as PORT_ADMIN, which an SFU node on the same host has
# TURN node: UDP towards SFU nodes. Above Linux' ephemeral ports, so that a filter of them meets nobody else.
PORT_RELAY_FIRST: Final = 61_000
PORT_RELAY_LAST: Final = 65_535

# An access token for the gateways' API beside `Authorization`, which the API server keeps to itself.
HEADER_TOKEN: Final = "X-Headwater-Token"
# Of a gateway's Pod: the volume with the API keys, a key in each file; and the port of PORT_SIGNAL.
VOLUME_API_KEYS: Final = "api-keys"
PORT_NAME_SIGNAL: Final = "signal"

ENV_POD_NAME: Final = "POD_NAME"
ENV_POD_IP: Final = "POD_IP"
ENV_POD_NAMESPACE: Final = "POD_NAMESPACE"
ENV_REGION: Final = "HEADWATER_REGION"
ENV_CLUSTER: Final = "HEADWATER_CLUSTER"
ENV_MAX_CONNECTIONS: Final = "HEADWATER_MAX_CONNECTIONS"
# Seconds that a node told to end has to be emptied: its termination grace less a margin.
ENV_DRAIN_GRACE: Final = "HEADWATER_DRAIN_GRACE_SECONDS"
# Bearer token of the node's gRPC, from the Secret named here; never in a ConfigMap or argument.
ENV_NODE_TOKEN: Final = "HEADWATER_NODE_TOKEN"
ENV_NODE_TOKEN_SECRET: Final = "HEADWATER_NODE_TOKEN_SECRET"
# SFU node: directory with tls.crt and tls.key. Gateway and operator: directory with ca.crt. Unset: no TLS.
ENV_NODE_TLS_DIR: Final = "HEADWATER_NODE_TLS_DIR"
# Operator: the Secret with tls.crt and tls.key that SFU Pods mount.
ENV_NODE_TLS_SECRET: Final = "HEADWATER_NODE_TLS_SECRET"
# Operator: where SFU nodes send traces, which they get as OTEL_EXPORTER_OTLP_ENDPOINT. Unset: nowhere.
ENV_NODE_TRACES: Final = "HEADWATER_NODE_TRACES_ENDPOINT"
# The DNS name in the certificate of an installation's SFU nodes; their addresses come and go.
NODE_TLS_NAME: Final = "sfu-node.headwater"
# On an SFU or a TURN Pod: "true" where its commands come by TLS.
ANNOTATION_NODE_TLS: Final = "headwater.dev/node-tls"
# TURN node: directory with tls.crt and tls.key for commands. Operator: directory with ca.crt. Unset: no TLS.
ENV_TURN_ADMIN_TLS_DIR: Final = "HEADWATER_TURN_ADMIN_TLS_DIR"
# Operator: the Secret with tls.crt and tls.key that TURN Pods mount for it.
ENV_TURN_ADMIN_TLS_SECRET: Final = "HEADWATER_TURN_ADMIN_TLS_SECRET"
# The DNS name in that certificate, which is one for all TURN nodes of an installation.
TURN_TLS_NAME: Final = "turn-node.headwater"
# Gateway: directory with tls.crt and tls.key, which it shows to other gateways, and ca.crt. Unset: no TLS.
ENV_GATEWAY_TLS_DIR: Final = "HEADWATER_GATEWAY_TLS_DIR"
# The DNS name in the certificate of an installation's gateways.
GATEWAY_TLS_NAME: Final = "gateway.headwater"
# On a gateway's Pod: "true" where other gateways reach it by TLS.
ANNOTATION_GATEWAY_TLS: Final = "headwater.dev/gateway-tls"
# The drain reason of a node whose Pod is going to end: nobody can call it back to service.
DRAIN_REASON_STOPPING: Final = "the Pod is going to end"
NODE_TOKEN_KEY: Final = "token"
# Directory with the shared secrets of the TURN servers: <Secret's name>/<key>.
ENV_TURN_SECRETS_DIR: Final = "HEADWATER_TURN_SECRETS_DIR"
# Directory with one file for each API key: its name is the key, its content the secret.
ENV_API_KEYS_DIR: Final = "HEADWATER_API_KEYS_DIR"

# Server-set participant attributes: where a participant is and on which node.
ATTRIBUTE_REGION: Final = "headwater.region"
ATTRIBUTE_NODE: Final = "headwater.node"
ATTRIBUTE_ROLE: Final = "headwater.role"
ATTRIBUTE_SOURCE: Final = "headwater.room"  # of a forwarded participant: the room that it is in
