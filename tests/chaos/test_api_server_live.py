"""The API server stopped for minutes, then killed, under a meeting in three regions.

`HEADWATER_CHAOS_AWAY` is how long it is stopped, in seconds.
"""

import json
import os
import signal
import time
from dataclasses import dataclass

import pytest
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from support.bystanders import Bystanders, bystanders
from support.clients import bot_spec, bots, until_heard
from support.cluster import Cluster, running_cluster
from support.deadline import until
from support.draining import NAMESPACE, cost, describe, gaps, is_ready, sfu_pods

AWAY_S = float(os.environ.get("HEADWATER_CHAOS_AWAY", "300"))
CONVERGED_S = 30.0
# Scheduler and kubelets ask again after pauses that grow to 30 s and are drawn out by chance up to twofold
# (client-go's reflectors), and one try may hang for 10 s: a Pod that the operator has made may wait as long
# for its process.
KUBERNETES_S = 75.0
MAX_TONE_GAP_MS = 2000  # nobody is moved: what there is comes from the machine, which is printed
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(AWAY_S + 300)]


def api_server_pid(cluster: Cluster) -> int:
    state = json.loads(cluster.sandbox.kubeconfig.with_name("state.json").read_text())
    return int(state["processes"]["apiserver"])


def identities(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["uid"] for pod in sfu_pods(cluster)}


@dataclass(frozen=True)
class Grown:
    """Seconds after the API server's return until it had taken a larger wish, until the operator had made its
    Pods, until Kubernetes' scheduler had placed them, and until they served."""

    taken_s: float
    made_s: float
    placed_s: float
    served_s: float

    def __str__(self) -> str:
        made = f"wish taken {self.taken_s:.1f} s, Pods made {self.made_s:.1f} s"
        return f"{made}, placed {self.placed_s:.1f} s, in service {self.served_s:.1f} s after its return"


async def until_grown(cluster: Cluster, nodes: int) -> Grown:
    """Wishes for so many nodes in each region, and waits for them."""
    began, regions = time.monotonic(), len(cluster.sandbox.regions)

    def taken() -> bool:
        command = ("get", "sfucluster", "demo", "-n", NAMESPACE, "-o", "json", "--request-timeout=2s")
        told = cluster.try_kubectl(*command)
        if told.returncode:
            return False
        wish = [region | {"minNodes": nodes} for region in json.loads(told.stdout)["spec"]["regions"]]
        patch = ("-p", json.dumps({"spec": {"regions": wish}}), "--request-timeout=2s")
        return not cluster.try_kubectl(
            "patch", "sfucluster", "demo", "-n", NAMESPACE, "--type=merge", *patch
        ).returncode

    def placed() -> bool:
        return sum(bool(pod["spec"].get("nodeName")) for pod in sfu_pods(cluster)) == nodes * regions

    await until(taken, CONVERGED_S, "the API server takes a wish", every_s=0.2)
    taken_s = time.monotonic() - began
    await until(
        lambda: len(sfu_pods(cluster)) == nodes * regions, CONVERGED_S, "the Pods of the wish are made", 0.2
    )
    made_s = time.monotonic() - began
    try:
        await until(placed, KUBERNETES_S, "they are placed", 0.2)
        placed_s = time.monotonic() - began
        await until(
            lambda: sum(map(is_ready, sfu_pods(cluster))) == nodes * regions,
            CONVERGED_S + KUBERNETES_S,
            "they serve",
            0.5,
        )
    except AssertionError:
        print(describe(cluster), flush=True)
        raise
    return Grown(taken_s, made_s, placed_s, time.monotonic() - began)


@dataclass(frozen=True)
class Meeting:
    """Clients whose call must go on."""

    cluster: Cluster
    fleet: Fleet
    pairs: list[Pair]
    others: Bystanders

    async def untouched(self, what: str, before: set[str], nodes: int) -> None:
        """The fleet converges in time, and the meeting has noticed nothing of it all."""
        grown = await until_grown(self.cluster, nodes)
        spent, found = cost(self.fleet, 0), gaps(self.fleet, self.pairs)
        print(f"{what}: {grown}; {found}; {spent.errors}; {self.others}", flush=True)
        assert before <= identities(self.cluster), "nobody lost their node"
        assert grown.made_s <= CONVERGED_S
        assert not spent.errors and all(bot.joins == 1 for bot in self.fleet.bots.values())
        assert found.at(1.0) <= MAX_TONE_GAP_MS


async def test_calls_do_without_the_api_server() -> None:
    with running_cluster(("--nodes-per-region", "1")) as cluster, bystanders() as others:
        regions = cluster.sandbox.regions
        names = [f"k-{region}" for region in regions]
        specs = [
            bot_spec(cluster, "kept", who, n, regions[n], picture=False, hear_ms=40)
            for n, who in enumerate(names)
        ]
        late = bot_spec(cluster, "kept", "k-late", len(names), regions[0], picture=False, hear_ms=40)
        pairs = [(a, b) for a in names for b in names if a != b]
        async with bots(specs) as fleet:
            await until_heard(fleet, pairs, 60)
            meeting = Meeting(cluster, fleet, pairs, others)
            before, pid = identities(cluster), api_server_pid(cluster)
            fleet.mark()
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            try:
                asked = cluster.try_kubectl("get", "pods", "-n", NAMESPACE, "--request-timeout=2s")
                assert asked.returncode, "it is stopped"
                await fleet.start([late], seed=1)
                both = [pair for who in names for pair in ((who, "k-late"), ("k-late", who))]
                await until_heard(fleet, both, 30)
                print(f"joined without it: {time.monotonic() - began:.1f} s after the stop", flush=True)
                left_s = AWAY_S - (time.monotonic() - began)
                await until(lambda: time.monotonic() - began >= AWAY_S, left_s + 5, "it is away", 0.2)
            finally:
                os.kill(pid, signal.SIGCONT)
            await meeting.untouched(f"stopped {AWAY_S:.0f} s", before, 2)
            before = identities(cluster)
            fleet.mark()
            os.kill(api_server_pid(cluster), signal.SIGKILL)
            await meeting.untouched("killed", before, 3)
            assert api_server_pid(cluster) != pid, "it was killed"
