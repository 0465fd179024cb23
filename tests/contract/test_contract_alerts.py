"""Each alert fires on its fault and only then; each has its page; Alertmanager takes the example."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from support.alert_faults import FAULTS

ROOT: Final = Path(__file__).resolve().parents[2]
RULES: Final = ROOT / "charts" / "headwater" / "files" / "rules.yaml"
RUNBOOK: Final = ROOT / "docs" / "runbook"
GROUPS: Final[list[dict[str, Any]]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: Final = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
WHERE: Final = 'namespace="calls",cluster="demo",region="eu"'


@dataclass(frozen=True)
class Case:
    """Series as promtool has them, one sample each `step`; `at` is when the fault must be seen."""

    fault: dict[str, str]
    quiet: dict[str, str]
    at: str
    step: str = "15s"


def nodes(kind: str, desired: int, **others: int) -> dict[str, str]:
    states = {"desired": desired, **others}
    return {f'headwater_{kind}_nodes{{{WHERE},state="{state}"}}': f"{n}x800" for state, n in states.items()}


def joins(good: int, bad: int, aborted: int = 0, samples: int = 1200) -> dict[str, str]:
    labels = 'namespace="calls",endpoint="rtc"'
    return {
        f'headwater_gateway_joins_total{{{labels},reason="Admitted"}}': f"0+{good}x{samples}",
        f'headwater_gateway_joins_total{{{labels},reason="NoCapacity"}}': f"0+{bad}x{samples}",
        'headwater_gateway_participants_aborted_total{namespace="calls"}': f"0+{aborted}x{samples}",
    }


def minutes(good: int, poor: int, samples: int = 1200) -> dict[str, str]:
    name = "headwater_gateway_participant_seconds_total"
    return {
        f'{name}{{namespace="calls",quality="GOOD"}}': f"0+{good}x{samples}",
        f'{name}{{namespace="calls",quality="POOR"}}': f"0+{poor}x{samples}",
    }


def gauge(name: str, value: str, labels: str = WHERE, samples: int = 800) -> dict[str, str]:
    return {f"{name}{{{labels}}}": f"{value}x{samples}"}


def connections(used: int) -> dict[str, str]:
    node = f'{WHERE},instance="n1"'
    return gauge("headwater_sfu_connections", str(used), node) | gauge(
        "headwater_sfu_max_connections", "1000", node
    )


def passes(ok: int, failed: int) -> dict[str, str]:
    name = 'headwater_operator_reconcile_seconds_count{namespace="calls",kind="Meeting",outcome="%s"}'
    return {name % "ok": f"0+{ok}x800", name % "failed": f"0+{failed}x800"}


DAY: Final = 86_400
EXPIRY: Final = "headwater_turn_certificate_expiry_timestamp_seconds"
LONG: Final = 600  # samples, of minutes
CASES: Final[dict[str, Case]] = {
    "HeadwaterJoinFastBurn": Case(joins(95, 5), joins(10_000, 10), "6m"),
    "HeadwaterJoinBurn": Case(joins(990, 0, aborted=10), joins(10_000, 10), "40m"),
    "HeadwaterJoinSlowBurn": Case(joins(9980, 20, samples=LONG), joins(10_000, 5, samples=LONG), "5h", "1m"),
    "HeadwaterQualityFastBurn": Case(minutes(80, 20), minutes(995, 5), "6m"),
    "HeadwaterQualityBurn": Case(minutes(92, 8), minutes(995, 5), "40m"),
    "HeadwaterQualitySlowBurn": Case(minutes(98, 2, samples=LONG), minutes(995, 5, samples=LONG), "5h", "1m"),
    "HeadwaterMetricsMissing": Case(
        gauge("headwater_operator_leader", "1"),
        gauge("headwater_operator_leader", "1") | gauge("headwater_gateway_rooms", "0"),
        "2m",
    ),
    "HeadwaterNoReadyNodes": Case(nodes("sfu", 2, ready=0), nodes("sfu", 2, ready=1), "1m"),
    "HeadwaterTurnDown": Case(nodes("turn", 1, ready=0), nodes("turn", 1, ready=1), "1m"),
    "HeadwaterCapacityExhausted": Case(connections(960), connections(900), "1m"),
    "HeadwaterCapacityLow": Case(connections(850), connections(500), "6m"),
    "HeadwaterCertificateExpired": Case(gauge(EXPIRY, str(DAY)), gauge(EXPIRY, str(3 * DAY)), "1m"),
    "HeadwaterCertificateExpires": Case(gauge(EXPIRY, str(9 * DAY)), gauge(EXPIRY, str(30 * DAY)), "11m"),
    "HeadwaterSecretRotationUnfinished": Case(
        gauge("headwater_turn_shared_secrets", "2", samples=LONG),
        gauge("headwater_turn_shared_secrets", "1", samples=LONG),
        "49h",
        "5m",
    ),
    "HeadwaterTurnBusy": Case(
        nodes("turn", 1, ready=1) | gauge("headwater_turn_allocations", "3500", 'cluster="demo",region="eu"'),
        nodes("turn", 2, ready=2) | gauge("headwater_turn_allocations", "3500", 'cluster="demo",region="eu"'),
        "6m",
    ),
    "HeadwaterNodeLost": Case(nodes("sfu", 2, ready=1, lost=1), nodes("sfu", 2, ready=2, lost=0), "3m"),
    "HeadwaterDrainStuck": Case(
        gauge("headwater_sfu_draining", "1"), gauge("headwater_sfu_draining", "0"), "31m"
    ),
    "HeadwaterForecastWrong": Case(
        nodes("sfu", 4, ready=4) | gauge("headwater_scale_forecast_error_nodes", "3"),
        nodes("sfu", 4, ready=4) | gauge("headwater_scale_forecast_error_nodes", "1"),
        "61m",
    ),
    "HeadwaterNoLeader": Case(
        gauge("headwater_operator_leader", "0"), gauge("headwater_operator_leader", "1"), "3m"
    ),
    "HeadwaterReconcileErrors": Case(passes(5, 5), passes(100, 5), "16m"),
    "HeadwaterSlowForwarding": Case(
        gauge("headwater_sfu_forward_seconds", "0.2", f'{WHERE},quantile="0.95"'),
        gauge("headwater_sfu_forward_seconds", "0.002", f'{WHERE},quantile="0.95"'),
        "6m",
    ),
    "HeadwaterFleetAtMaximum": Case(
        gauge("headwater_scale_reason", "1", f'{WHERE},reason="AtMaxNodes"'),
        gauge("headwater_scale_reason", "1", f'{WHERE},reason="WithinBounds"'),
        "11m",
    ),
    "HeadwaterFleetScales": Case(
        {f'headwater_scale_changes_total{{{WHERE},direction="up"}}': "0+1x800"},
        {f'headwater_scale_changes_total{{{WHERE},direction="up"}}': "3x800"},
        "12m",
    ),
    "HeadwaterUsersMoved": Case(
        {'headwater_gateway_moved_total{namespace="calls"}': "0+2x800"},
        {'headwater_gateway_moved_total{namespace="calls"}': "0x800"},
        "12m",
    ),
}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.fail("promtool is missing: run `make setup`, or install prometheus", pytrace=False)
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=50, check=False)


def rules_of(name: str, step: str) -> str:
    """A rule file with that alert and, where it needs them, the recording rules."""
    burns = name.endswith("Burn")
    groups = [
        group | {"interval": step, "rules": [r for r in group["rules"] if r.get("alert", name) == name]}
        for group in GROUPS
        if burns or any("alert" in rule for rule in group["rules"])
    ]
    return json.dumps({"groups": groups})


def fires(tmp: Path, name: str, series: dict[str, str], case: Case) -> bool:
    """Whether the alert fires at the case's time."""
    (tmp / "rules.yaml").write_text(rules_of(name, case.step))
    expression = {
        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
        "eval_time": case.at,
        "exp_samples": [{"labels": "{}", "value": 1}],
    }
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": case.step,
        "tests": [
            {
                "interval": case.step,
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "promql_expr_test": [expression],
            }
        ],
    }
    path = tmp / "test.yaml"
    path.write_text(json.dumps(test))
    done = promtool("test", "rules", str(path))
    if done.returncode == 0:
        return True
    assert re.search(r"got:\s*\"?\{\} 0E\+00|\{\} 0E\+00", done.stdout + done.stderr), (
        done.stdout + done.stderr
    )
    return False


def test_each_alert_has_a_case_and_a_page() -> None:
    assert set(CASES) == set(ALERTS)
    assert {path.stem for path in RUNBOOK.glob("Headwater*.md")} == set(ALERTS)
    for name in ALERTS:
        text = (RUNBOOK / f"{name}.md").read_text()
        for heading in ("## Meaning", "## Impact", "## Check", "## Fix"):
            assert heading in text, f"{name}: {heading} is missing"
        assert f"Severity: {ALERTS[name]['labels']['severity']}." in text
        assert f"[{name}]({name}.md)" in (RUNBOOK / "README.md").read_text()


def test_rules_are_well_formed_and_told_apart_by_severity() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert rule["annotations"]["runbook_url"].endswith(f"/{name}")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], name


def test_critical_alerts_fire_within_ninety_seconds() -> None:
    """A scrape (15 s) and one evaluation each of recording and alerting rules (15 s) come first."""
    for name, rule in ALERTS.items():
        if rule["labels"]["severity"] == "critical":
            assert rule["for"] in ("30s", "45s"), name


def test_each_critical_alert_has_a_fault_that_fires_it_in_a_cluster() -> None:
    """`tests/chaos/test_alerts_fire.py` injects them."""
    critical = {name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "critical"}
    assert {alert for fault in FAULTS.values() for alert, _ in fault.alerts} == critical


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_alert_fires_on_its_fault_only(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert fires(tmp_path, name, case.fault, case)
    assert not fires(tmp_path, name, case.quiet, case)


def test_alertmanager_takes_the_example_and_pages_for_critical_alerts() -> None:
    path = ROOT / "docs" / "examples" / "alertmanager.yaml"
    if shutil.which("amtool") is None:
        pytest.fail("amtool is missing: run `make setup`, or install prometheus-alertmanager", pytrace=False)
    done = subprocess.run(
        ["amtool", "check-config", str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    routed = {
        severity: subprocess.run(
            ["amtool", "config", "routes", "test", f"--config.file={path}", f"severity={severity}",
             "alertname=HeadwaterJoinBurn"],
            capture_output=True, text=True, timeout=30, check=True,
        ).stdout.strip()
        for severity in ("critical", "warning", "info")
    }  # fmt: skip
    assert routed == {"critical": "pagerduty", "warning": "chat", "info": "nobody"}


@pytest.mark.parametrize("program", ["gateway", "sfu"])
@pytest.mark.parametrize("name", ["HeadwaterCertificateExpired", "HeadwaterCertificateExpires"])
def test_other_certificates_than_turns_are_watched_too(name: str, program: str, tmp_path: Path) -> None:
    case, series_name = CASES[name], f"headwater_{program}_certificate_expiry_timestamp_seconds"
    for series, is_bad in ((case.fault, True), (case.quiet, False)):
        (value,) = series.values()
        assert fires(tmp_path, name, gauge(series_name, value.removesuffix("x800")), case) is is_bad
    assert fires(tmp_path, name, gauge(series_name, "0"), case), "nobody takes it"
