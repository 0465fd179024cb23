"""A fleet's figures from the source that its spec names."""

from collections.abc import Mapping
from datetime import datetime

import structlog
from headwater_api.reasons import Reason
from headwater_planner.scale.signals import NodeSignals, signals_of_reports
from headwater_planner.supply import Held
from headwater_planner.world import ClusterWorld

from headwater_operator.metrics_source.prometheus import MetricsUnavailable, PrometheusSource

log = structlog.get_logger(__name__)


class MetricsSources:
    """One for the whole operator."""

    def __init__(self, prometheus: PrometheusSource | None = None) -> None:
        self._prometheus = prometheus or PrometheusSource()

    async def read(self, world: ClusterWorld, now: datetime) -> tuple[Mapping[str, NodeSignals], Held | None]:
        """Signals by node for `plan_scale`, and what is wrong with the source.

        Where the source fails there are no signals: every node is silent, and nothing is lowered.
        """
        autoscaling = world.cluster.spec.autoscaling
        if autoscaling.metrics_source == "NodeReports" or autoscaling.mode == "Fixed":
            return signals_of_reports(world.loads), None
        metadata = world.cluster.metadata
        if autoscaling.prometheus is None:  # the CRD's rule refuses this
            return {}, Held(Reason.METRICS_MISSING, "spec.autoscaling.prometheus.url is missing")
        try:
            url = autoscaling.prometheus.url
            return await self._prometheus.read(url, metadata.namespace, now.timestamp()), None
        except MetricsUnavailable as error:
            log.warning("metrics source failed", cluster=metadata.name, error=str(error))
            return {}, Held(Reason.METRICS_MISSING, str(error))

    async def close(self) -> None:
        """Ends what still runs."""
        await self._prometheus.close()
