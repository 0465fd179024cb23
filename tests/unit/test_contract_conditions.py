"""Conditions: the transition time moves with the status only."""

import re
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from headwater_api.conditions import Condition, Status, find_condition, is_true, set_condition
from headwater_api.model import ApiModel
from headwater_api.reasons import Reason

T0 = datetime(2030, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
T1 = T0 + timedelta(minutes=5)


class ConditionList(ApiModel):
    """As in a status."""

    conditions: tuple[Condition, ...]


def ready(status: Status, reason: Reason = Reason.ALL_NODES_READY, *, generation: int = 1) -> Condition:
    return Condition(type="Ready", status=status, reason=reason, observed_generation=generation)


def test_a_new_condition_is_stamped_in_whole_seconds() -> None:
    (found,) = set_condition((), ready(Status.TRUE), T0)
    assert found.last_transition_time == T0.replace(microsecond=0)


def test_the_same_status_keeps_its_time_and_takes_the_rest() -> None:
    before = set_condition((), ready(Status.FALSE, Reason.NODES_STARTING), T0)
    (after,) = set_condition(before, ready(Status.FALSE, Reason.NODES_MISSING, generation=2), T1)
    assert after.last_transition_time == before[0].last_transition_time
    assert (after.reason, after.observed_generation) == (Reason.NODES_MISSING, 2)


def test_a_changed_status_moves_the_time_whatever_the_new_one_claims() -> None:
    before = set_condition((), ready(Status.FALSE), T0)
    claimed = replace(ready(Status.TRUE), last_transition_time=T0)
    (after,) = set_condition(before, claimed, T1)
    assert after.last_transition_time == T1.replace(microsecond=0)


def test_order_stays_and_others_are_untouched() -> None:
    other = Condition(type="Degraded", status=Status.FALSE, reason=Reason.AS_EXPECTED)
    conditions = set_condition(set_condition((), ready(Status.FALSE), T0), other, T0)
    after = set_condition(conditions, ready(Status.TRUE), T1)
    assert [condition.type for condition in after] == ["Ready", "Degraded"]
    assert after[1] is conditions[1]
    assert is_true(after, "Ready")
    assert not is_true(after, "Degraded")
    assert not is_true(after, "Missing")
    assert find_condition(after, "Missing") is None


def test_a_condition_survives_the_api_server_and_an_unknown_reason() -> None:
    body = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "SomethingNewer",
        "message": "m",
        "observedGeneration": 3,
        "lastTransitionTime": "2030-01-01T12:00:00Z",
    }
    assert ConditionList.from_kubernetes({"conditions": [body]}).to_kubernetes() == {"conditions": [body]}


@pytest.mark.parametrize(("value", "status"), [(True, "True"), (False, "False"), (None, "Unknown")])
def test_status_of_a_truth(value: bool | None, status: str) -> None:
    assert Status.of(value) == status


def test_models_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError, match="status"):
        ready(Status.TRUE).status = Status.FALSE  # type: ignore[misc]


def test_reasons_are_fit_for_conditions() -> None:
    for reason in Reason:
        assert Condition(type="Ready", status=Status.TRUE, reason=reason).reason == reason.value
    assert len({reason.value.lower() for reason in Reason}) == len(Reason)


def test_each_reason_is_given_somewhere() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = [*root.glob("*/src/**/*.py"), *root.glob("sfu-node/python/**/*.py")]
    given = set(re.findall(r"(?<![\w.])Reason\.([A-Z_]+)", "\n".join(path.read_text() for path in sources)))
    assert {reason.name for reason in Reason} == given
