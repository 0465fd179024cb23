"""What a subscriber's record says, from frames at given times."""

from headwater_sandbox.demo.recorder import PairRecorder, PairReport
from headwater_sandbox.demo.watermark import Mark

SIZE = (320, 180)


def fed(times: list[int]) -> PairRecorder:
    pair = PairRecorder("bot-us-1")
    for number, at_ms in enumerate(times):
        pair.on_marked_frame(at_ms, Mark(3, number, at_ms - 40), 3, SIZE)
    return pair


def test_frames_per_second_are_of_the_last_two_seconds() -> None:
    report = fed(list(range(0, 10_000, 100))).take(9_900)

    assert report.frames == 100
    assert report.fps == 10.0
    assert set(report.latency_ms) == {40}


def test_a_gap_that_lasts_still_counts_and_a_new_interval_forgets() -> None:
    pair = fed([0, 100, 900, 1000])

    assert pair.take(1_050).gap_ms == 800
    assert pair.take(1_600).gap_ms == 600
    assert pair.take(4_000).fps == 0.0


def test_frames_without_a_mark_or_with_anothers_do_not_count() -> None:
    pair = fed([0])
    pair.on_marked_frame(100, None, 3, SIZE)
    pair.on_marked_frame(200, Mark(4, 0, 0), 3, SIZE)

    report = pair.take(300)
    assert (report.frames, report.unreadable, report.crossed, report.gap_ms) == (1, 1, 1, 300)


def test_a_tone_fades_when_it_is_no_longer_heard() -> None:
    pair = fed([0])
    pair.on_tone(100, True)
    pair.on_tone(600, False)

    assert pair.take(1_000).tone
    assert not pair.take(1_200).tone


def test_a_report_survives_json() -> None:
    report = fed([0, 50]).take(60)

    assert PairReport.from_json(report.to_json()) == report
