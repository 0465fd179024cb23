"""The documentation's commands, typed as a reader would: page by page, in one shell for each page."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.kube import BINARY, ROOT

sys.path.append(str(ROOT / "scripts" / "reference"))
from blocks import Block, pages_of, read_blocks  # type: ignore[import-not-found]

QUICK_START: Final = ROOT / "docs" / "start" / "sandbox.md"
RUNBOOK: Final = ROOT / "docs" / "runbook"
PAGE_DEADLINE_S: Final = 200
# Not part of a checkout, or too much to show to a shell.
_HIDDEN: Final = {".git", ".venv", "docs"}
_CREATED: Final = re.compile(r"kubectl create (namespace|secret)(?: generic| tls)? (\S+)")
_NAMESPACE: Final = re.compile(r"(?<= )-n \S+")
_HEADWATER: Final = """#!/bin/sh
[ "$1 $2" != "sandbox up" ] || set -- "$@" --die-with {pid}
exec {program} "$@"
"""
_HELM: Final = """#!/bin/sh
exec {python} {standin} {binary} "$@"
"""


def blocks(page: Path) -> list[Block]:
    return list(read_blocks(page))


def pages() -> list[Path]:
    """The pages with commands to run, without the quick start, which begins and ends the others' sandbox, and
    the runbook."""
    return [
        page
        for page in pages_of(ROOT)
        if page not in (QUICK_START, *RUNBOOK.glob("*.md"))
        and any(b.commands and not b.reason for b in blocks(page))
    ]


def runbook() -> list[Block]:
    """What the runbook's pages ask, each command once: they only look."""
    commands = {
        command: None
        for page in sorted(RUNBOOK.glob("*.md"))
        for block in blocks(page)
        if not block.reason
        for command in block.commands
    }
    return [Block(tuple(commands))]


def deletions(found: list[Block]) -> list[Block]:
    """Commands that take away what the blocks' `kubectl create` made, for who reads a page once more."""
    undone = []
    for block in found:
        for command in block.commands if not block.reason else ():
            if made := _CREATED.match(command):
                where = _NAMESPACE.search(command)
                undone.append(
                    f"kubectl delete {made[1]} {made[2]} {where[0] if where else ''} --ignore-not-found"
                )
    return [Block(tuple(undone))]


@dataclass(frozen=True)
class Reader:
    """Somebody with a checkout, a shell, and no sandbox but the one that they start."""

    home: Path

    @classmethod
    def with_checkout(cls, home: Path) -> "Reader":
        """Makes the checkout of links, and a PATH with `headwater`, kubectl and a stand-in for helm."""
        for entry in ROOT.iterdir():
            if entry.name not in _HIDDEN:
                (home / entry.name).symlink_to(entry)
        bin_ = home / ".venv" / "bin"
        bin_.mkdir(parents=True)
        for program in Path(sys.executable).parent.iterdir():
            (bin_ / program.name).symlink_to(program)
        standin = ROOT / "tests" / "support" / "helm_standin.py"
        (bin_ / "helm").write_text(_HELM.format(python=sys.executable, standin=standin, binary=BINARY))
        (bin_ / "helm").chmod(0o755)
        # The sandbox is detached, as the page has it, and ends with us all the same.
        (bin_ / "headwater").unlink()
        program = Path(sys.executable).with_name("headwater")
        (bin_ / "headwater").write_text(_HEADWATER.format(program=program, pid=os.getpid()))
        (bin_ / "headwater").chmod(0o755)
        return cls(home)

    def run(self, found: list[Block], kubeconfig: str = "") -> subprocess.CompletedProcess[str]:
        """Saves the files, types the commands, and stops at the first that fails. -1: out of time."""
        script = ["set -euo pipefail"]
        for block in found:
            if block.name:
                (self.home / block.name).write_text(block.text)
            if not block.reason:
                for command in block.commands:
                    script += [f"echo {shlex.quote('$ ' + command)} >&2", command]
        env = {**os.environ, "XDG_STATE_HOME": str(self.home / "state"), "KUBECONFIG": kubeconfig}
        env["PATH"] = f"{self.home / '.venv' / 'bin'}:{env['PATH']}"
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            try:
                code = subprocess.run(
                    ["bash", "-c", "\n".join(script)], cwd=self.home, env=env, stdin=subprocess.DEVNULL,
                    stdout=out, stderr=err, timeout=PAGE_DEADLINE_S, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = -1
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(["bash"], code, out.read(), err.read())
