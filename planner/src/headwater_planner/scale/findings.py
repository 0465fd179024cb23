"""The conditions ScalingActive and ScalingLimited; their texts change when something does, not with load."""

from collections.abc import Mapping, Sequence

from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUClusterSpec

from headwater_planner.scale.pace import Draft
from headwater_planner.scale.result import Finding
from headwater_planner.scale.wishes import Wishes

_SHOWN = 3


def active_finding(faults: Mapping[str, Sequence[str]]) -> Finding:
    """Whether every region's load is known. `faults`: "node: why" by region."""
    blind = {name: found for name, found in sorted(faults.items()) if found}
    if not blind:
        text = (
            "nodes follow CPU, connections, latency, egress, packets and joins, within the floors and limits"
        )
        return Finding(True, Reason.SCALING_ENABLED, text)
    parts = [
        f"region {name}: {', '.join(sorted(fault.split(':')[0] for fault in found)[:_SHOWN])}"
        + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        for name, found in blind.items()
    ]
    text = f"figures are missing or cannot be believed, so numbers are only raised ({'; '.join(parts)})"
    return Finding(False, Reason.METRICS_MISSING, text)


def limited_finding(
    spec: SFUClusterSpec, wishes: Wishes, drafts: Mapping[str, Draft], final: Mapping[str, int]
) -> Finding:
    """Whether limits keep the fleet smaller than load asks for."""
    cut = sorted(name for name, draft in drafts.items() if final[name] < draft.paced)
    if cut:
        limit = spec.autoscaling.max_nodes
        text = f"autoscaling.maxNodes {limit} is reached; more is wanted in {', '.join(cut)}"
        return Finding(True, Reason.AT_MAX_NODES, text)
    if wishes.spills:
        parts = []
        for source in sorted({spill.source for spill in wishes.spills}):
            targets = [spill.target or "nowhere" for spill in wishes.out_of(source)]
            region = spec.region(source)
            parts.append(
                f"region {source} is at its maxNodes {region.max_nodes if region else 0}, more goes to "
                f"{' and '.join(targets)}"
            )
        nowhere = any(spill.target is None for spill in wishes.spills)
        return Finding(True, Reason.AT_MAX_NODES if nowhere else Reason.SPILLED_OVER, "; ".join(parts))
    return Finding(False, Reason.WITHIN_BOUNDS, "no limit keeps the fleet smaller than wanted")
