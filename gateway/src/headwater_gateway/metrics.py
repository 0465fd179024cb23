"""The gateway's Prometheus metrics. One instance for each process; tests make their own registry."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Names carry the unit; labels are bounded (reasons, sources, kinds; never users or rooms)."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.joins = Counter(
            "headwater_gateway_joins",
            "Joins by outcome: reason is Admitted or why it was refused.",
            ["endpoint", "reason"],
            registry=self.registry,
        )
        self.sessions = Gauge(
            "headwater_gateway_sessions", "Open signalling WebSockets.", registry=self.registry
        )
        self.regions = Counter(
            "headwater_gateway_region_resolutions",
            "How the region of a client was found.",
            ["source"],
            registry=self.registry,
        )
        self.bad_frames = Counter(
            "headwater_gateway_bad_frames",
            "Signalling frames that were not taken, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.slow_clients = Counter(
            "headwater_gateway_slow_clients",
            "Sessions closed because the client did not read.",
            registry=self.registry,
        )
        self.session_errors = Counter(
            "headwater_gateway_session_errors",
            "Sessions that ended with an error of ours.",
            registry=self.registry,
        )
        self._add_edge_metrics()

    def _add_edge_metrics(self) -> None:
        self.forwarded = Counter(
            "headwater_gateway_forwarded_sessions",
            "Sessions passed on to the gateway that owns the room, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.join_seconds = Histogram(
            "headwater_gateway_admission_seconds",
            "From the request to the end of admission, in seconds.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0),
            registry=self.registry,
        )
