"""All programs' metrics together: what is measured, under which labels, and that no more is asked for."""

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
import yaml
from headwater_api.nodev1 import node_pb2
from headwater_gateway.metrics import Metrics as GatewayMetrics
from headwater_gateway.metrics import PlaneCollector, RoomFigures
from headwater_operator.metrics import Metrics as OperatorMetrics
from headwater_sfu.metrics import TOP_ROOMS, ReportCollector
from headwater_turn.desired import Status
from headwater_turn.metrics import TurnCollector
from headwater_turn.usage import Usage
from livekit.protocol import models
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest
from support.charts import CHARTS
from support.dashboards import BOARDS, expressions

ALLOWED_LABELS: Final = {
    "endpoint", "reason", "source", "outcome", "region", "quality", "direction", "le", "kind", "action",
    "namespace", "cluster", "state", "quantile", "peer", "side", "code", "what", "version",
}  # fmt: skip
# The one exception, bounded by its number: the largest rooms of a node.
TOP: Final = re.compile(r"headwater_sfu_top_room_(participants|tracks)")
SUFFIXES: Final = ("_total", "_bucket", "_count", "_sum", "_created")


def an_empty_directory() -> Any:
    pool = SimpleNamespace(views=tuple)
    return SimpleNamespace(rooms=tuple, pool=pool, moved_total=lambda: 0)


def a_turn_status() -> Status:
    return Status("t", "eu", "4.6.1", True, "", False, False, False, 0, 0, 0.0, 0, (), False, 443, 2e9)


def a_report(rooms: int = 0) -> node_pb2.NodeReport:
    report = node_pb2.NodeReport(node_id="n")
    for number in range(rooms):
        report.rooms.add(room_id=f"room-{number}", participants=number)
    for number in range(50):
        report.links.add(
            link_id=f"l{number}", room_id=f"r{number}", peer_node_id=f"p{number % 2}", tx_mbps=1.0
        )
    return report


def families() -> Iterator[Metric]:
    """Every metric of every program."""
    gateway = GatewayMetrics()
    gateway.watch_certificate(lambda: 0.0)
    turn = SimpleNamespace(ready=dict)
    yield from gateway.registry.collect()
    yield from PlaneCollector(an_empty_directory(), cast(Any, turn)).collect()
    yield from OperatorMetrics().registry.collect()
    yield from ReportCollector(a_report(), 0, 0, 0.0, 2e9).collect()
    yield from TurnCollector(a_turn_status, Usage(), {"peers": 1}).collect()


def names() -> set[str]:
    return {family.name for family in families()}


def base(name: str) -> str:
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def test_everything_that_rules_and_dashboards_ask_for_is_measured() -> None:
    known = {base(name) for name in names()}
    asked: dict[str, str] = {}
    groups = yaml.safe_load((CHARTS / "headwater" / "files" / "rules.yaml").read_text())["groups"]
    queries = [(rule.get("alert", "rule"), rule["expr"]) for group in groups for rule in group["rules"]]
    queries += [(title, query) for board in BOARDS.values() for title, query in expressions(board)]
    for where, query in queries:
        for name in re.findall(r"\b(headwater_\w+)", query):
            asked[base(name)] = where
    assert {name: where for name, where in asked.items() if name not in known} == {}
    assert len(asked) > 40


def test_no_two_programs_have_a_metric_of_one_name() -> None:
    """A sum over it would count twice. What the client library measures of a process is in each."""
    seen = [family.name for family in families() if not family.name.startswith("process_")]
    assert sorted(seen) == sorted(set(seen))


def test_each_group_of_figures_has_its_metrics() -> None:
    known = names()
    groups = {
        "connection success": {"headwater_gateway_joins", "headwater_gateway_participants_connected"},
        "audio and video quality": {"headwater_gateway_loss_ratio", "headwater_gateway_rtt_seconds"},
        "server performance": {"headwater_sfu_cpu_percent", "headwater_sfu_forward_seconds"},
        "user experience": {"headwater_gateway_join_to_media_seconds", "headwater_gateway_participants_left"},
        "business": {"headwater_gateway_participant_seconds", "headwater_gateway_rooms_started"},
    }
    for group, wanted in groups.items():
        assert wanted <= known, group


def test_no_label_can_grow_with_users_or_rooms() -> None:
    for family in families():
        for sample in family.samples:
            if not TOP.match(sample.name) and not sample.name.startswith("process_"):
                assert set(sample.labels) <= ALLOWED_LABELS, sample.name


def test_rooms_by_name_are_the_few_largest_and_links_are_summed_by_peer() -> None:
    found = {f.name: f for f in ReportCollector(a_report(rooms=500), 0, 0, 0.0).collect()}
    rooms = found["headwater_sfu_top_room_participants"].samples
    assert len(rooms) == TOP_ROOMS and {s.labels["room"] for s in rooms} >= {"room-499", "room-490"}
    links = found["headwater_sfu_link_transmit_megabits_per_second"].samples
    assert {(s.labels["peer"], s.value) for s in links} == {("p0", 25.0), ("p1", 25.0)}


@pytest.fixture
def gateway() -> GatewayMetrics:
    return GatewayMetrics()


def test_what_users_live_through_is_counted(gateway: GatewayMetrics) -> None:
    figures = RoomFigures(gateway, lambda: 100_000)
    room = models.Room(name="standup", num_participants=3, creation_time_ms=40_000)
    ann = models.ParticipantInfo(region="eu", joined_at_ms=98_500)
    figures.happened("room_started", lambda: room, None)
    figures.happened("participant_joined", lambda: room, ann)
    figures.happened("participant_connection_aborted", lambda: room, ann)
    ann.disconnect_reason = models.DisconnectReason.CLIENT_INITIATED
    figures.happened("participant_left", lambda: room, ann)
    figures.happened("room_finished", lambda: room, None)
    loss = node_pb2.QualityEvent(participant_id="PA", uplink_loss=0.03, downlink_loss=0.0, rtt_ms=80)
    figures.quality(loss, models.ConnectionQuality.GOOD)

    def value(name: str, **labels: str) -> float | None:
        return gateway.registry.get_sample_value(name, labels)

    prefix = "headwater_gateway"
    assert value(f"{prefix}_participants_connected_total", region="eu") == 1
    assert value(f"{prefix}_join_to_media_seconds_sum", region="eu") == 1.5
    assert value(f"{prefix}_participants_aborted_total", region="eu") == 1
    assert value(f"{prefix}_participants_left_total", region="eu", reason="CLIENT_INITIATED") == 1
    assert value(f"{prefix}_session_seconds_sum") == 1.5
    assert value(f"{prefix}_room_seconds_sum") == 60
    assert value(f"{prefix}_participant_seconds_total", quality="GOOD") == 5
    assert value(f"{prefix}_loss_ratio_bucket", direction="uplink", le="0.05") == 1
    assert value(f"{prefix}_loss_ratio_bucket", direction="uplink", le="0.02") == 0
    assert value(f"{prefix}_rtt_seconds_sum") == 0.08


def test_a_slow_join_names_its_room_in_an_exemplar_only(gateway: GatewayMetrics) -> None:
    room, ann = models.Room(name="r" * 300), models.ParticipantInfo(region="eu", joined_at_ms=0)
    RoomFigures(gateway, lambda: 7000).happened("participant_joined", lambda: room, ann)
    registry = cast(CollectorRegistry, gateway.registry)
    (line,) = [text for text in generate_latest(registry).decode().splitlines() if "rrr" in text]
    assert re.search(r'le="10\.0".* # \{room="r{60}"\} 7\.0', line)
