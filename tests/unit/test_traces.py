"""Traces are made only where OpenTelemetry's variables ask for them, and cost nothing else."""

import logging
import subprocess
import sys
from ipaddress import ip_address

import pytest
from headwater_api.ids import GatewayId
from headwater_api.traces import CannotTrace, room_hash, wants_traces
from headwater_gateway.tracing import carried, headers, opened, stage
from headwater_sfu import tracing as node_tracing
from headwater_sfu.config import NodeConfig
from structlog.testing import capture_logs

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_traces_are_wanted_where_an_endpoint_is_named(env: dict[str, str], wanted: bool) -> None:
    assert wants_traces(env) is wanted


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER='zipkin': write otlp or none"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL='grpc': write http/protobuf"),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
            },
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL='http/json': write http/protobuf",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_the_gateway_serves_without(more: dict[str, str], said: str) -> None:
    with pytest.raises(CannotTrace) as caught:
        wants_traces(ENDPOINT | more)
    assert str(caught.value).startswith(said)
    with capture_logs() as logs, opened(ENDPOINT | more, GatewayId("g")) as traces:
        assert traces is None
    (line,) = logs
    assert line["log_level"] == "warning" and line["reason"].startswith(said)


def test_without_the_extra_both_programs_say_so_and_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if OpenTelemetry were not there
    with capture_logs() as logs, opened(ENDPOINT, GatewayId("g")) as traces:
        assert traces is None
    assert logs[0]["event"] == "traces.off" and "headwater-gateway[traces]" in logs[0]["fix"]
    node = NodeConfig("n", "eu", "c", ip_address("127.0.0.1"), "token")
    with caplog.at_level(logging.WARNING), node_tracing.opened(ENDPOINT, node) as traces:
        assert traces is None
    assert "headwater-sfu[traces]" in caplog.text


@pytest.mark.parametrize(
    "program",
    ["headwater_gateway.__main__, headwater_gateway.plane", "headwater_sfu.agent, headwater_sfu.tracing"],
)
def test_programs_that_do_not_trace_do_not_load_opentelemetry(program: str) -> None:
    """Nor the client of Redis, which loads it where it is installed."""
    code = (
        f"import sys, {program}; sys.exit(' '.join(m for m in sys.modules if m.startswith('opentel')) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr


def test_outside_of_a_traced_join_nothing_is_wrapped() -> None:
    def decide(now: float) -> float:
        return now

    assert carried("place", decide) is decide and headers() == {} and stage("a") is stage("b")


def test_a_rooms_hash_is_what_the_documentation_says() -> None:
    assert room_hash("standup") == "c0fbdc38b1762851"
