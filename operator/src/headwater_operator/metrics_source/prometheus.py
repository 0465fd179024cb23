"""The nodes' figures from a Prometheus server that scrapes them, by the labels `namespace` and `pod`.

The client is blocking: it works in a thread, with a deadline, one query at a time for each server. A figure's
age is that of its scrape, not of the answer: a server repeats an old value for minutes.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from headwater_planner.scale.signals import NodeSignals

DEADLINE_S: Final = 5.0
MAX_SKEW_S: Final = 5.0
_PREFIX: Final = "headwater_sfu_"
_FORWARD: Final = "forward_seconds"
# Metric of the agent -> field of NodeSignals.
_FIELDS: Final[Mapping[str, str]] = {
    "cpu_percent": "cpu_percent",
    "connections": "connections",
    "participants": "connections",  # the larger of the two, as with a report
    _FORWARD: "p95_ms",
    "transmit_megabits_per_second": "egress_mbps",
    "transmit_packets_per_second": "packets_per_second",
    "queue_fill_percent": "queue_percent",
    "transports_created_total": "transports_created",
}
# One of the metrics that every node has: its scrape's time is that of all of them.
_TIMED: Final = "cpu_percent"


class MetricsUnavailable(Exception):
    """The server could not be asked; the text names it and says why."""


class Server(Protocol):
    """The part of prometheus_api_client.PrometheusConnect that is used."""

    def custom_query(self, query: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        ...


def connect(url: str) -> Server:
    """A client for the server. Raises MetricsUnavailable where the optional extra is not installed."""
    try:
        from prometheus_api_client import PrometheusConnect
        from urllib3.util.retry import Retry
    except ImportError:
        raise MetricsUnavailable(
            "metricsSource is Prometheus, but headwater-operator was installed without its extra prometheus"
        ) from None
    # No retries: the next pass asks again.
    server: Server = PrometheusConnect(url=url.rstrip("/"), retry=Retry(0), timeout=DEADLINE_S)
    return server


class PrometheusSource:
    """Keeps one client for each server."""

    def __init__(self, connect: Callable[[str], Server] = connect) -> None:
        self._connect = connect
        self._servers: dict[str, Server] = {}
        self._running: dict[str, asyncio.Task[dict[str, NodeSignals]]] = {}

    async def read(self, url: str, namespace: str, now_s: float) -> dict[str, NodeSignals]:
        """Figures by Pod name; `now_s`: Unix time. Raises MetricsUnavailable."""
        running = self._running.get(url)
        if running is not None and not running.done():
            raise MetricsUnavailable(f"Prometheus at {url} has not answered the last query yet")
        if url not in self._servers:
            self._servers[url] = self._connect(url)
        task = asyncio.create_task(asyncio.to_thread(_ask, self._servers[url], namespace, now_s))
        self._running[url] = task
        # A thread cannot be stopped: past the deadline it ends by itself, and its answer is dropped.
        task.add_done_callback(_retrieve)
        try:
            return await asyncio.wait_for(asyncio.shield(task), DEADLINE_S)
        except TimeoutError:
            raise MetricsUnavailable(f"Prometheus at {url} did not answer within {DEADLINE_S:g} s") from None
        except MetricsUnavailable:
            raise
        except Exception as error:  # requests' tree, JSON's, and the client's own
            raise MetricsUnavailable(f"Prometheus at {url} cannot be asked: {_short(error)}") from error

    async def close(self) -> None:
        """Waits for the threads that still work, at most their deadlines."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._running.clear()
        self._servers.clear()


def _ask(server: Server, namespace: str, now_s: float) -> dict[str, NodeSignals]:
    names = "|".join(sorted(set(_FIELDS) - {_FORWARD}))
    where = f'namespace="{_escape(namespace)}"'
    values = server.custom_query(f'{{__name__=~"{_PREFIX}({names})",{where}}}')
    values += server.custom_query(f'{_PREFIX}{_FORWARD}{{quantile="0.95",{where}}}')
    times = server.custom_query(f"timestamp({_PREFIX}{_TIMED}{{{where}}})")
    return signals_of_series(values, times, now_s)


def signals_of_series(
    values: Iterable[Mapping[str, Any]], times: Iterable[Mapping[str, Any]], now_s: float
) -> dict[str, NodeSignals]:
    """Signals by Pod from the results of instant queries (Prometheus HTTP API, "instant vectors").

    Where a Pod is scraped twice, the higher figure and the older time count. A Pod without a time has
    figures of an unknown age.
    """
    scraped: dict[str, float] = {}
    for series in times:
        pod, at = _pod(series), _value(series)
        scraped[pod] = min(scraped.get(pod, math.inf), at) if not math.isnan(at) else math.nan
    figures: dict[str, dict[str, float]] = {}
    for series in values:
        name = str(series["metric"].get("__name__", "")).removeprefix(_PREFIX)
        value = _value(series) * (1000.0 if name == _FORWARD else 1.0)
        field = _FIELDS.get(name)
        if field is not None:
            known = figures.setdefault(_pod(series), {})
            known[field] = _higher(known.get(field), value)
    return {
        pod: NodeSignals(age_s=_age(now_s - scraped.get(pod, math.nan)), **known)
        for pod, known in figures.items()
        if pod
    }


def _age(age_s: float) -> float:
    """A server's clock may be a little ahead of ours; far ahead, its times mean nothing."""
    return 0.0 if -MAX_SKEW_S <= age_s < 0 else age_s


def _higher(known: float | None, value: float) -> float:
    """Of two figures the higher; NaN where one is."""
    if known is None:
        return value
    return math.nan if math.isnan(known) or math.isnan(value) else max(known, value)


def _pod(series: Mapping[str, Any]) -> str:
    return str(series["metric"].get("pod", ""))


def _value(series: Mapping[str, Any]) -> float:
    """The sample's value, which comes as text and may be NaN or +Inf."""
    try:
        return float(series["value"][1])
    except (TypeError, ValueError, IndexError, KeyError):
        return math.nan


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _retrieve(task: asyncio.Task[dict[str, NodeSignals]]) -> None:
    """Takes the exception, so that a dropped answer does not complain."""
    if not task.cancelled():
        task.exception()
