"""Known vulnerabilities in what Headwater ships of others, by the lock files. `make audit`.

`python scripts/audit.py CARGO-DENY…`: the command of cargo-deny, with the engine's manifest. The engine's
crates are looked up in RustSec's database (cargo-deny), Python's packages in PyPI's (pip-audit). Exit code 0:
nothing is known of any; 1: something is; 2: nothing was found, and a database could not be asked.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import sbom

PIP_AUDIT: Final = ("tool", "run", "--from", "pip-audit==2.10.1", "pip-audit")
# Of this one a database knows several: an index without advisories says of every package that there are none.
CONTROL: Final = "jinja2==2.4.1"
DEADLINE_S: Final = 600

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a database said. `unasked`: why it could not be asked, of all or of some; empty: it was."""

    findings: tuple[str, ...] = ()
    unasked: str = ""


def rust(run: Run, cargo_deny: Sequence[str]) -> Answer:
    """The engine's crates, what only tests use included."""
    fetched = run([*cargo_deny, "fetch", "db"])
    if fetched.returncode:
        return Answer(unasked=_last_line(fetched.stderr))
    checked = run([*cargo_deny, "check", "--hide-inclusion-graph", "advisories"])
    return Answer((checked.stderr.strip(),) if checked.returncode else ())


def python(run: Run, uv: str, pins: Sequence[str]) -> Answer:
    """`pins`: name==version of each package."""
    control = _pip_audit(run, uv, [CONTROL])
    if control.unasked or not control.findings:
        return Answer(unasked=control.unasked or f"it knows nothing of {CONTROL}, of which much is known")
    return _pip_audit(run, uv, pins)


def _pip_audit(run: Run, uv: str, pins: Sequence[str]) -> Answer:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{pin}\n" for pin in pins))
        file.flush()
        command = [uv, *PIP_AUDIT, "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
        done = run([*command, "--requirement", file.name])
    try:
        return read_report(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        return Answer(unasked=_last_line(done.stderr) or "pip-audit answered nothing that can be read")


def read_report(report: dict[str, list[dict[str, object]]]) -> Answer:
    """pip-audit's JSON. What it could not look up it calls neither good nor bad, with exit code 0."""
    findings, skipped = [], []
    for package in report["dependencies"]:
        known = package.get("vulns", [])
        assert isinstance(known, list)
        for one in known:
            mended = ", ".join(one["fix_versions"]) or "no version"
            findings.append(f"{package['name']} {package['version']}: {one['id']}, mended in {mended}")
        if "skip_reason" in package:
            skipped.append(str(package["skip_reason"]))
    unasked = f"{len(skipped)} packages were not looked up, the first: {skipped[0]}" if skipped else ""
    return Answer(tuple(findings), unasked)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def told(answers: dict[str, Answer]) -> tuple[str, int]:
    """What to print, and the exit code."""
    lines = []
    for about, answer in answers.items():
        lines += [f"{about}: {finding}" for finding in answer.findings]
        if answer.unasked:
            lines.append(f"{about}: NOT ASKED: {answer.unasked}")
        elif not answer.findings:
            lines.append(f"{about}: nothing known")
    found = any(answer.findings for answer in answers.values())
    unasked = any(answer.unasked for answer in answers.values())
    return "\n".join(lines) + "\n", 1 if found else 2 if unasked else 0


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def main() -> int:
    uv = shutil.which("uv") or str(sbom.ROOT / ".build" / "uv" / "bin" / "uv")
    pins = [
        f"{one.name}=={one.version}"
        for one in sbom.python_components()
        if not one.name.startswith("headwater-")
    ]
    answers = {
        "crates (RustSec)": rust(_run, sys.argv[1:]),
        f"{len(pins)} Python packages (PyPI)": python(_run, uv, pins),
    }
    text, code = told(answers)
    sys.stdout.write(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
