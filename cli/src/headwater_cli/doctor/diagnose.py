"""From facts to findings. Pure: the clock is among the facts."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from headwater_api import wellknown as wk

from headwater_cli.doctor.facts import Facts, Finding, Level
from headwater_cli.doctor.fleet import fleet_findings
from headwater_cli.doctor.programs import program_findings

# Access tokens carry times of seconds; the gateway forgives a minute.
MAX_SKEW: Final = timedelta(seconds=30)
CERTIFICATE_WARNING: Final = timedelta(days=14)
LEASE_GRACE: Final = timedelta(seconds=15)


def diagnose(facts: Facts) -> list[Finding]:
    """All findings, the worst first; one OK for each subject without a finding is among them."""
    if facts.api_error:
        fix = "check the kubeconfig ($KUBECONFIG, --kubeconfig), your network and your rights"
        return [Finding(Level.ERROR, "API server", facts.api_error, fix)]
    if facts.missing_crds:
        names = ", ".join(facts.missing_crds)
        fix = "install the chart headwater-crds, before the chart headwater"
        return [Finding(Level.ERROR, "custom resources", f"not installed: {names}", fix)]
    findings = [
        *fleet_findings(facts),
        *program_findings(facts),
        *_leader(facts),
        *_clocks(facts),
        *_endpoint(facts),
        *_certificates(facts),
    ]
    order = list(Level)
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _leader(facts: Facts) -> Iterator[Finding]:
    if not any(pod.component == wk.COMPONENT_OPERATOR for pod in facts.pods):
        return  # its absence is told already
    lease = facts.lease
    if lease is None or not lease.holder or lease.renewed is None:
        yield Finding(
            Level.ERROR,
            "operator",
            "no operator holds the Lease, so nobody acts on SFUClusters",
            f"kubectl -n {facts.namespace} logs -l {wk.LABEL_COMPONENT}={wk.COMPONENT_OPERATOR}",
        )
        return
    age = facts.now - lease.renewed
    if age > timedelta(seconds=lease.duration_s) + LEASE_GRACE:
        yield Finding(
            Level.ERROR,
            "operator",
            f"{lease.holder} renewed the Lease {age.total_seconds():.0f} s ago: it is gone or stuck",
            f"kubectl -n {facts.namespace} delete pod {lease.holder}",
        )
    else:
        yield Finding(Level.OK, "operator", f"{lease.holder} leads")


def _clocks(facts: Facts) -> Iterator[Finding]:
    skews = {}
    if facts.server_time is not None:
        skews["the API server"] = facts.server_time - facts.now
    skews |= {f"node {name}": r.at - facts.now for name, r in facts.reports.items() if r.at is not None}
    wrong = {who: skew for who, skew in skews.items() if abs(skew) > MAX_SKEW}
    for who, skew in sorted(wrong.items()):
        seconds = skew.total_seconds()
        side = "ahead of" if seconds > 0 else "behind"
        yield Finding(
            Level.ERROR,
            "clock",
            f"the clock of {who} is {abs(seconds):.0f} s {side} this machine's",
            "run a time service (chrony) on both; tokens and certificates of one are refused by the other",
        )
    if skews and not wrong:
        yield Finding(Level.OK, "clock", f"{len(skews)} clocks agree to {MAX_SKEW.seconds} s")


def _endpoint(facts: Facts) -> Iterator[Finding]:
    endpoint = facts.endpoint
    if endpoint is None:
        yield Finding(
            Level.WARNING,
            "gateway address",
            "not tested: no address is known",
            "set publicUrl in the chart's values, or give --url",
        )
    elif endpoint.error:
        fix = "check DNS, the load balancer or Ingress in front of the gateways, and its certificate"
        yield Finding(
            Level.ERROR, "gateway address", f"{endpoint.url} cannot be reached: {endpoint.error}", fix
        )
    elif endpoint.status != 401:
        # /rtc/validate without a token is refused by a gateway with 401, by others with something else.
        yield Finding(
            Level.ERROR,
            "gateway address",
            f"{endpoint.url} answers {endpoint.status} where a gateway answers 401: it is something else",
            "route /rtc of that address to the gateway's Service, port 7880, WebSocket upgrades included",
        )
    else:
        yield Finding(Level.OK, "gateway address", f"a gateway answers at {endpoint.url}")


def _certificates(facts: Facts) -> Iterator[Finding]:
    for certificate in facts.certificates:
        where = certificate.endpoint
        if certificate.error or certificate.not_after is None:
            yield Finding(
                Level.ERROR,
                "certificate",
                f"{where}: {certificate.error or 'no certificate'}",
                "renew it, or name the right host; clients refuse it",
            )
            continue
        left = certificate.not_after - facts.now
        if left < timedelta():
            yield Finding(
                Level.ERROR,
                "certificate",
                f"{where}: expired on {certificate.not_after:%Y-%m-%d}",
                "renew it (with cert-manager: kubectl describe certificate)",
            )
        elif left < CERTIFICATE_WARNING:
            yield Finding(
                Level.WARNING,
                "certificate",
                f"{where}: expires in {left.days} days, on {certificate.not_after:%Y-%m-%d}",
                "renew it now; automatic renewal should have done so by this time",
            )
        else:
            yield Finding(Level.OK, "certificate", f"{where}: valid for {left.days} days")
