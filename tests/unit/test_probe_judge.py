"""What the probe makes of its measurements."""

from dataclasses import replace

import pytest
from headwater_cli.probe.judge import Limits, Measured, judge

WELL = Measured(0.2, 0.3, 0.6, 0.5, 29.0, 0.1, 12.0, "192.0.2.1:7882", "192.0.2.2:7882")


def failed(measured: Measured) -> list[str]:
    return [verdict.sentence for verdict in judge(measured, Limits()) if not verdict.ok]


def test_all_is_well() -> None:
    assert failed(WELL) == [] and len(judge(WELL, Limits())) == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"published_s": 9.0}, "publishing connected after 9.00 s"),
        ({"watching_s": 9.0}, "watching connected after 9.00 s"),
        ({"first_frame_s": 9.0}, "first picture after 9.00 s"),
        ({"audio_s": None}, "audible tone: not at all"),
        ({"frames_per_second": 2.0}, "2.0 pictures/s"),
        ({"loss_percent": 11.0}, "11.0 % loss"),
    ],
)
def test_each_limit(changes: dict[str, float | None], words: str) -> None:
    (sentence,) = failed(replace(WELL, **changes))  # type: ignore[arg-type]
    assert words in sentence


def test_the_stage_that_failed_is_the_last_word() -> None:
    assert failed(Measured(error="no answer in time")) == ["publishing: no answer in time"]
    (sentence,) = failed(Measured(published_s=0.1, error="refused"))
    assert sentence == "watching: refused"


def test_nothing_seen_is_a_failure() -> None:
    assert failed(replace(WELL, first_frame_s=None)) == ["first picture: not at all"]
