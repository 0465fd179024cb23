"""Every command of the documentation, against the sandbox that the quick start's own first command starts.

A block that is not run says so, with the reason, where a reader sees it; docs/reference/commands.md has them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.docs import QUICK_START, Block, Reader, blocks, deletions, pages, runbook
from support.second_try import second_try

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Started:
    reader: Reader
    kubeconfig: str
    middle: list[Block]


def passes(reader: Reader, found: list[Block], kubeconfig: str = "") -> str:
    """What the commands print. AssertionError with all that was said where one fails."""
    done = reader.run(found, kubeconfig)
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{done.stdout[-1500:]}"
    return done.stdout


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """The quick start's first and last block around everything else."""
    reader = Reader.with_checkout(tmp_path_factory.mktemp("reader"))
    quick = [block for block in blocks(QUICK_START) if not block.reason]
    first, last = quick[0], quick[-1]
    assert "headwater sandbox up" in first.commands[-1] and last.commands == ("headwater sandbox down",)
    try:
        printed = json.loads(passes(reader, [first]))
        yield Started(reader, printed["kubeconfig"], quick[1:-1])
    finally:
        passes(reader, [last])


def test_the_quick_start(started: Started) -> None:
    printed = passes(started.reader, started.middle)
    assert "meeting.headwater.dev/standup condition met" in printed


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_commands_of_a_page(started: Started, page: Path, request: pytest.FixtureRequest) -> None:
    if second_try(request.node):
        passes(started.reader, deletions(blocks(page)), started.kubeconfig)
    passes(started.reader, blocks(page), started.kubeconfig)


def test_the_commands_of_the_runbook(started: Started) -> None:
    passes(started.reader, runbook(), started.kubeconfig)


def test_a_command_that_fails_is_seen(started: Started) -> None:
    done = started.reader.run([Block(("kubectl get nothing-of-this-kind", "true"))], started.kubeconfig)
    assert done.returncode != 0 and "$ kubectl get nothing" in done.stderr and "$ true" not in done.stderr
