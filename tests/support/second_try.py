"""A second try for tests that wait for real processes: what it hides from the exit code it shows at the end.

`make test` asks for it (`--reruns 1`); who runs a test by hand sees its first failure. Tests without
processes have none. Why, and why so few: docs/decisions/0096-a-second-try.md.

`make test-twice` sets FORCED: the first try of each such test counts as failed once it has passed, so that
what it leaves behind (names that are taken, processes that were ended) is seen to bar no second try.
"""

import os
from collections.abc import Iterator
from typing import Final

import pytest

FOLDERS: Final = ("component", "media", "e2e")
MOST: Final = 3  # of a run: more are a defect and not the machine's noise
FORCED: Final = "HEADWATER_TEST_TWICE" in os.environ

_tried: list[tuple[str, str]] = []  # a test's id, and what its first try said


def second_try(item: pytest.Item) -> bool:
    """Whether the test has been tried before in this process."""
    return getattr(item, "execution_count", 1) > 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name not in FOLDERS:
            item.add_marker(pytest.mark.flaky(reruns=0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield
    if (
        FORCED
        and not second_try(item)
        and report.when == "call"
        and report.passed
        and item.path.parent.name in FOLDERS
    ):
        report.outcome, report.longrepr = "failed", "passed; the second try was asked for"
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.outcome == "rerun":  # type: ignore[comparison-overlap]  # the plugin's own
        loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
        _tried.append((report.nodeid, f"load average {loads}\n{report.longreprtext}"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if len(_tried) > MOST and not FORCED and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _tried or FORCED:
        return
    verdict = f": more than {MOST}, so the run failed" if len(_tried) > MOST else ""
    terminalreporter.section(f"{len(_tried)} tried twice{verdict}")
    for test, text in _tried:
        terminalreporter.write_line(f"--- first try of {test}, {text}")
