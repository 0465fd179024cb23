"""Settings from the environment, kopf's settings, and which changes become Events."""

import operator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from headwater_api.conditions import Condition, Status
from headwater_operator.handlers.config import kopf_settings
from headwater_operator.kube.resources import EVENTS, NODES, PODS, SFUCLUSTERS
from headwater_operator.loop.meetings import join_url_of
from headwater_operator.loop.transitions import transitions
from headwater_operator.settings import InvalidSettings, Settings


def test_the_standard_library_is_not_shadowed() -> None:
    origin = operator.__spec__ and operator.__spec__.origin
    assert origin and not Path(origin).is_relative_to(Path(__file__).resolve().parents[2] / "operator")


def test_settings_of_a_pod() -> None:
    settings = Settings.from_env(
        {
            "POD_NAME": "op-1",
            "POD_IP": "127.0.0.9",
            "POD_NAMESPACE": "headwater",
            "HEADWATER_NAMESPACES": "a,b",
            "HEADWATER_NODE_TOKEN": "t",
            "HEADWATER_NODE_TOKEN_SECRET": "s",
            "HEADWATER_SFU_IMAGE": "i",
            "HEADWATER_PUBLIC_URL": "https://x/",
            "HEADWATER_LOG_LEVEL": "debug",
        }
    )
    assert (settings.lease.identity, settings.lease.namespace) == ("op-1", "headwater")
    assert (settings.admin_host, settings.admin_port, settings.namespaces) == ("127.0.0.9", 9090, ("a", "b"))
    assert (settings.node_token_secret, settings.sfu_image) == ("s", "i")
    assert (settings.public_url, settings.log_level) == ("https://x", "DEBUG")


def test_the_write_deadline_lies_before_the_takeover() -> None:
    lease = Settings.from_env({}).lease
    assert lease.renew_deadline_s + lease.write_timeout_s <= lease.duration_s == 15


@pytest.mark.parametrize(
    "environ",
    [
        {"HEADWATER_RESYNC": "soon"},
        {"HEADWATER_ADMIN_PORT": "-1"},
        {"HEADWATER_LEASE_DURATION": "nan"},
        {"HEADWATER_LEASE_DURATION": "0"},
        {"HEADWATER_LOG_LEVEL": "loud"},
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match=next(iter(environ))):
        Settings.from_env(environ)


def test_kopf_keeps_to_the_edge() -> None:
    settings = kopf_settings(namespaced=False)
    assert settings.peering.standalone and not settings.posting.enabled
    assert not settings.scanning.disabled
    assert settings.persistence.finalizer.startswith("headwater.dev/")
    assert kopf_settings(namespaced=True).scanning.disabled


def test_paths() -> None:
    assert PODS.path("ns", "p", "status") == "/api/v1/namespaces/ns/pods/p/status"
    assert NODES.path("ns", "n") == "/api/v1/nodes/n"
    assert SFUCLUSTERS.path() == "/apis/headwater.dev/v1alpha1/sfuclusters"
    assert EVENTS.path("a/b") == "/apis/events.k8s.io/v1/namespaces/a%2Fb/events"


def condition(type_: str, status: Status, reason: str = "AllNodesReady") -> Condition:
    stamp = datetime(2030, 1, 1, tzinfo=UTC)
    return Condition(type=type_, status=status, reason=reason, message="m", last_transition_time=stamp)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ([], [condition("Ready", Status.TRUE)], ["Ready is True: m"]),
        ([condition("Ready", Status.TRUE)], [condition("Ready", Status.TRUE)], []),
        ([condition("Ready", Status.TRUE)], [condition("Ready", Status.FALSE)], ["Ready is False: m"]),
        ([], [condition("Degraded", Status.FALSE), condition("Ended", Status.FALSE)], []),
        ([condition("Progressing", Status.TRUE)], [condition("Progressing", Status.FALSE)], []),
    ],
)
def test_transitions_are_told_once(old: list[Condition], new: list[Condition], told: list[str]) -> None:
    assert [transition.note for transition in transitions(old, new)] == told


def test_only_bad_news_are_warnings() -> None:
    (bad,) = transitions([], [condition("CapacityAvailable", Status.FALSE, "PodsUnschedulable")])
    (good,) = transitions([], [condition("Active", Status.TRUE, "ParticipantsPresent")])
    assert bad.warning and not good.warning


@pytest.mark.parametrize(
    ("public", "join"),
    [("", ""), ("ws://127.0.0.1:7880", "ws://127.0.0.1:7880"), ("https://x", "https://x/?room=standup")],
)
def test_join_url(public: str, join: str) -> None:
    assert join_url_of(public, "standup") == join
