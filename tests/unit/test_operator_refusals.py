"""What is told of refused actions: the same with each try."""

from datetime import UTC, datetime

import pytest
from headwater_api.reasons import Reason
from headwater_operator.loop.act import refusal_text
from headwater_planner.supply import CreateNode, DrainNode
from headwater_planner.turn import CreateTurn


@pytest.mark.parametrize(("kind", "word"), [(CreateNode, "SFU"), (CreateTurn, "TURN")])
def test_a_refused_pod_is_told_without_its_random_name(
    kind: type[CreateNode] | type[CreateTurn], word: str
) -> None:
    texts = {
        refusal_text(
            kind(name, "eu", Reason.BELOW_MIN_NODES, "1 of 2 wanted nodes exist"),
            f'pods "{name}" is forbidden: exceeded quota',
        )
        for name in ("demo-eu-bcdfg", "demo-eu-hjklm")
    }
    assert texts == {
        f'a new {word} node in region eu was refused: pods "its Pod" is forbidden: exceeded quota'
    }


def test_other_actions_are_told_whole() -> None:
    until = datetime(2030, 1, 31, 9, tzinfo=UTC)
    drain = DrainNode("demo-eu-bcdfg", "eu", Reason.UPGRADING, "it is old", until, 1.0)
    assert refusal_text(drain, "no answer") == f"{drain} was refused: no answer"
