"""The doctor's findings on facts that are hard to bring about for real."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from headwater_api.sfucluster import SFUCluster
from headwater_cli.doctor.diagnose import diagnose
from headwater_cli.doctor.facts import (
    Certificate,
    Endpoint,
    Facts,
    Finding,
    LeaseFacts,
    Level,
    PodFacts,
    Report,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pod(component: str, **changes: object) -> PodFacts:
    healthy = PodFacts(f"{component}-0", component, "eu", True, "Running", "", "", 0, "img:1", {}, ())
    return replace(healthy, **changes)  # type: ignore[arg-type]


WELL = Facts(
    "headwater",
    NOW,
    server_time=NOW,
    pods=(pod("operator"), pod("gateway")),
    lease=LeaseFacts("operator-0", NOW - timedelta(seconds=2), 15),
    endpoint=Endpoint("wss://meet.example", 401),
)


def errors(facts: Facts) -> list[Finding]:
    return [finding for finding in diagnose(facts) if finding.level is Level.ERROR]


def only(facts: Facts, level: Level = Level.ERROR) -> Finding:
    found = [f for f in diagnose(facts) if f.level is level and f not in diagnose(WELL)]
    assert len(found) == 1, found
    assert found[0].fix, "each finding says what to do"
    return found[0]


def test_nothing_is_wrong_with_a_healthy_installation() -> None:
    assert errors(WELL) == []


@pytest.mark.parametrize(("seconds", "side"), [(45, "ahead of"), (-45, "behind")])
def test_a_wrong_clock(seconds: int, side: str) -> None:
    finding = only(replace(WELL, server_time=NOW + timedelta(seconds=seconds)))
    assert finding.subject == "clock" and f"45 s {side}" in finding.sentence


def test_a_node_with_a_wrong_clock_is_named() -> None:
    finding = only(replace(WELL, reports={"sfu-eu-1": Report(at=NOW - timedelta(minutes=5))}))
    assert "sfu-eu-1" in finding.sentence and "300 s behind" in finding.sentence


def test_no_operator_leads() -> None:
    assert "nobody acts" in only(replace(WELL, lease=None)).sentence


def test_a_leader_that_stopped_renewing() -> None:
    lease = LeaseFacts("operator-0", NOW - timedelta(minutes=2), 15)
    assert "120 s ago" in only(replace(WELL, lease=lease)).sentence


def test_the_public_address_is_somebody_else() -> None:
    assert "answers 404" in only(replace(WELL, endpoint=Endpoint("wss://meet.example", 404))).sentence


def test_the_public_address_does_not_answer() -> None:
    finding = only(replace(WELL, endpoint=Endpoint("wss://meet.example", error="refused")))
    assert "cannot be reached: refused" in finding.sentence


@pytest.mark.parametrize(
    ("left", "level", "words"),
    [
        (timedelta(days=-1), Level.ERROR, "expired on 2026-01-01"),
        (timedelta(days=3), Level.WARNING, "expires in 3 days"),
    ],
)
def test_certificates(left: timedelta, level: Level, words: str) -> None:
    facts = replace(WELL, certificates=(Certificate("meet.example:443", NOW + left),))
    assert words in only(facts, level).sentence


def test_small_kernel_buffers() -> None:
    facts = replace(WELL, reports={"sfu-0": Report(at=NOW, receive_buffer_bytes=212_992)})
    finding = only(facts, Level.WARNING)
    assert "208 KiB" in finding.sentence and "rmem_max" in finding.fix


def test_private_media_addresses() -> None:
    facts = replace(WELL, reports={"sfu-0": Report(at=NOW, media_addresses=("10.0.0.7:7882",))})
    assert "private addresses" in only(facts, Level.WARNING).sentence
    node = pod("sfu-node", name="sfu-0", external=("203.0.114.7:30123",))
    exposed = replace(facts, pods=(*WELL.pods, node))
    assert not [f for f in diagnose(exposed) if f.subject == "media addresses"]
    public = replace(WELL, reports={"sfu-0": Report(at=NOW, media_addresses=("[2600::7]:7882",))})
    assert diagnose(public)[1:] != diagnose(facts)[1:]
    assert not [f for f in diagnose(public) if f.subject == "media addresses"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"waiting": "ImagePullBackOff", "message": "not found"}, "cannot be pulled: not found"),
        ({"waiting": "CrashLoopBackOff", "restarts": 7}, "7 restarts"),
        ({"waiting": "CreateContainerConfigError", "message": 'secret "x" not found'}, 'secret "x"'),
        ({"phase": "Pending", "message": "0/3 nodes are available"}, "0/3 nodes"),
        ({"ready": False}, "not ready"),
        ({"phase": "Failed", "message": "OOMKilled"}, "OOMKilled"),
    ],
)
def test_a_pod_that_does_not_run(changes: dict[str, object], words: str) -> None:
    facts = replace(WELL, pods=(*WELL.pods, pod("sfu-node", **changes)))
    assert words in only(facts).sentence


@pytest.mark.parametrize("status", ["False", "True", "Unknown"])
def test_clients_that_are_sent_to_nodes_in_vain(status: str) -> None:
    told = {
        "type": "AddressReachable",
        "status": status,
        "reason": "X",
        "message": "region eu: none connects",
    }
    body = {
        "metadata": {"name": "fleet", "namespace": "headwater"},
        "spec": {"regions": [{"name": "eu"}]},
        "status": {"conditions": [told]},
    }
    found = diagnose(replace(WELL, clusters=(SFUCluster.from_kubernetes(body),)))
    assert ("region eu: none connects" in [finding.sentence for finding in found]) == (status == "False")


def turn_findings(secrets: dict[str, dict[str, int] | None], **turn: object) -> list[str]:
    spec = {
        "regions": [{"name": "eu"}],
        "turn": {
            "maxPerRegion": 1,
            "tlsSecretRef": {"name": "turn-tls"},
            "sharedSecretRefs": [{"name": "turn-secret", "key": "current"}],
            **turn,
        },
    }
    body = {"metadata": {"name": "fleet", "namespace": "headwater"}, "spec": spec}
    facts = replace(WELL, clusters=(SFUCluster.from_kubernetes(body),), secrets=secrets)
    return [f.sentence for f in diagnose(facts) if f.sentence.startswith("turn.")]


def test_turn_without_the_secrets_it_names() -> None:
    whole: dict[str, dict[str, int] | None] = {
        "turn-secret": {"current": 40},
        "turn-tls": {"tls.crt": 900, "tls.key": 200},
    }
    assert turn_findings(whole, tlsDomain="turn.example.com") == []
    (found,) = turn_findings({**whole, "turn-tls": {"ca.crt": 9}}, tlsDomain="turn.example.com")
    assert "tlsSecretRef: Secret turn-tls" in found
    (found,) = turn_findings({**whole, "turn-secret": None}, tlsDomain="turn.example.com")
    assert "sharedSecretRefs: Secret turn-secret with the key current" in found
    assert turn_findings({}, tlsDomain="turn.example.com") == [], "nobody may look: nothing is known"


def test_a_turn_certificate_that_names_addresses() -> None:
    (found,) = turn_findings({})
    assert "tlsDomain is not set" in found


def test_a_dead_api_server_is_the_only_finding() -> None:
    assert [f.subject for f in diagnose(replace(WELL, api_error="refused"))] == ["API server"]


def test_missing_definitions_are_the_only_finding() -> None:
    found = diagnose(replace(WELL, missing_crds=("meetings.headwater.dev",)))
    assert len(found) == 1 and "headwater-crds" in found[0].fix


def test_the_worst_comes_first() -> None:
    levels = [f.level for f in diagnose(replace(WELL, lease=None))]
    assert levels == sorted(levels, key=list(Level).index)
