"""Findings on Headwater's own programs: are they there, do they run, are their Secrets in order?"""

from collections.abc import Iterator
from typing import Final

from headwater_api import wellknown as wk

from headwater_cli.doctor.facts import Facts, Finding, Level, PodFacts, SecretUse

MIN_SECRET_LENGTH: Final = 32
PROGRAMS: Final = (wk.COMPONENT_OPERATOR, wk.COMPONENT_GATEWAY)
_GEOIP: Final = "HEADWATER_GEOIP_DATABASE"
_PROXIES: Final = "HEADWATER_TRUSTED_PROXIES"
_DEFAULT_REGION: Final = "HEADWATER_DEFAULT_REGION"
_REGION: Final = "HEADWATER_REGION"


def program_findings(facts: Facts) -> Iterator[Finding]:
    for component in PROGRAMS:
        if not any(pod.component == component for pod in facts.pods):
            yield Finding(
                Level.ERROR,
                component,
                f"no {component} Pod in namespace {facts.namespace}",
                "install the chart headwater, or give the right --namespace",
            )
    for pod in facts.pods:
        yield from _pod(facts, pod)
    yield from _secrets(facts)
    yield from _location(facts)


def _pod(facts: Facts, pod: PodFacts) -> Iterator[Finding]:
    where = f"{pod.component} {pod.name}"
    logs = f"kubectl -n {facts.namespace} logs {pod.name}"
    if pod.waiting in ("ImagePullBackOff", "ErrImagePull", "InvalidImageName"):
        yield Finding(
            Level.ERROR,
            where,
            f"its image {pod.image} cannot be pulled: {pod.message}",
            "check the image's name and tag, global.imageRegistry and global.imagePullSecrets",
        )
    elif pod.waiting == "CreateContainerConfigError":
        fix = f"kubectl -n {facts.namespace} describe pod {pod.name}; most often a Secret is missing"
        yield Finding(Level.ERROR, where, f"cannot start: {pod.message}", fix)
    elif pod.waiting == "CrashLoopBackOff":
        yield Finding(Level.ERROR, where, f"ends again and again ({pod.restarts} restarts)", logs + " -p")
    elif pod.phase == "Pending":
        fix = f"kubectl -n {facts.namespace} describe pod {pod.name}"
        yield Finding(Level.ERROR, where, f"has no Kubernetes node: {pod.message or 'waiting'}", fix)
    elif pod.phase == "Failed":
        yield Finding(Level.ERROR, where, f"has failed: {pod.message or 'see its log'}", logs)
    elif pod.phase == "Running" and not pod.ready:
        yield Finding(Level.ERROR, where, "runs but is not ready", logs)
    else:
        yield Finding(Level.OK, where, "ready")


def _secrets(facts: Facts) -> Iterator[Finding]:
    uses = {use for pod in facts.pods for use in pod.secrets}
    for use in sorted(uses, key=lambda use: (use.secret, use.key)):
        yield from _secret(facts, use)


def _secret(facts: Facts, use: SecretUse) -> Iterator[Finding]:
    subject = f"Secret {use.secret}"
    if use.secret not in facts.secrets:
        return  # not allowed to look: nothing is known
    keys = facts.secrets[use.secret]
    create = f"kubectl -n {facts.namespace} create secret generic {use.secret}"
    if keys is None:
        yield Finding(Level.ERROR, subject, "does not exist", f"{create} --from-file={use.key or 'KEY'}")
        return
    if use.key and use.key not in keys:
        have = ", ".join(sorted(keys)) or "nothing"
        yield Finding(
            Level.ERROR, subject, f"has no key {use.key} (it has {have})", f"add the key {use.key} to it"
        )
        return
    if not keys:
        yield Finding(Level.ERROR, subject, "is empty: nobody can join", "add an API key and its secret")
    for key in [use.key] if use.key else sorted(keys):
        if keys[key] < MIN_SECRET_LENGTH:
            yield Finding(
                Level.ERROR,
                subject,
                f"the value of {key} has {keys[key]} characters: it can be guessed",
                f"use at least {MIN_SECRET_LENGTH}, such as from: openssl rand -hex 32",
            )


def _location(facts: Facts) -> Iterator[Finding]:
    gateways = [pod for pod in facts.pods if pod.component == wk.COMPONENT_GATEWAY]
    if not gateways:
        return
    env = gateways[0].env
    if not env.get(_GEOIP):
        yield Finding(
            Level.WARNING,
            "location of clients",
            "no GeoIP database: clients are located by the country of their address alone",
            "mount a City database (MMDB) and set gateway.geoipDatabase",
        )
    if not env.get(_DEFAULT_REGION) and not env.get(_REGION):
        yield Finding(
            Level.WARNING,
            "location of clients",
            "no default region: a client whose location is unknown may get a far node",
            "set gateway.defaultRegion",
        )
    if not env.get(_PROXIES):
        yield Finding(
            Level.WARNING,
            "location of clients",
            "no trusted proxies: behind a load balancer every client seems to be where the balancer is",
            "set gateway.trustedProxies to the balancer's addresses (CIDR), if there is one",
        )
