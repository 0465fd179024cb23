"""The watch over the machine sees others' work, and not the test's own."""

import os
import signal
import subprocess
import sys

from support.bystanders import bystanders, foreign_cpu_s, waited_ms
from support.deadline import until

# Ended by the kernel, should nobody else do it.
SPIN = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (20, 20))\nwhile True: pass"
# Its parent ends at once, so that it is nobody's child.
ORPHAN = (
    "import subprocess, sys\n"
    "quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}\n"
    f"print(subprocess.Popen([sys.executable, '-c', {SPIN!r}], **quiet).pid)"
)


def test_own_children_are_not_counted() -> None:
    child = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        assert child.pid not in {pid for pid, _ in foreign_cpu_s()}
    finally:
        child.kill()
        child.wait()


async def test_the_work_of_others_is_counted() -> None:
    started = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=True)
    orphan = int(started.stdout)
    try:
        assert orphan in {pid for pid, _ in foreign_cpu_s()}
        with bystanders() as others:
            await until(lambda: others.used_s > 0.2, 20, "the orphan's work is seen")
        assert others.share > 0
    finally:
        os.kill(orphan, signal.SIGKILL)


async def test_a_thread_that_shares_its_processor_is_seen_to_wait() -> None:
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(here)})  # the child's too
    spin = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        before = waited_ms()

        def waits() -> bool:
            sum(range(100_000))
            return waited_ms() > before

        await until(waits, 20, "a wait for the processor is counted", every_s=0.001)
    finally:
        os.sched_setaffinity(0, here)
        spin.kill()
        spin.wait()
