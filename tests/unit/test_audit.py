"""`make audit`: what is found fails it, and what could not be asked is said and is no clean bill."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import audit

KNOWN = {"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}


class Tools:
    """cargo-deny and pip-audit, by what their databases know."""

    def __init__(self, fetch: int = 0, crates: int = 0, known: dict[str, list[object]] | None = None) -> None:
        self.fetch, self.crates, self.known = fetch, crates, known
        self.looked_up: list[str] = []

    def run(self, command: Sequence[str]) -> CompletedProcess[str]:
        if command[-2:] == ["fetch", "db"]:
            return CompletedProcess(command, self.fetch, "", "failed to fetch\nCould not resolve host\n")
        if "check" in command:
            return CompletedProcess(command, self.crates, "", "error[vulnerability]: RUSTSEC-2026-0001\n")
        pins = Path(command[-1]).read_text().split()
        self.looked_up += pins
        return CompletedProcess(command, 0, self._report(pins), "connection refused\n")

    def _report(self, pins: list[str]) -> str:
        if self.known is None:
            return ""
        rows: list[dict[str, object]] = []
        for name, version in (pin.split("==") for pin in pins):
            if name in self.known:
                rows.append({"name": name, "version": version, "vulns": self.known[name]})
            else:
                rows.append({"name": name, "skip_reason": f"Dependency not found on PyPI: {name}"})
        return json.dumps({"dependencies": rows, "fixes": []})


def ask(tools: Tools) -> tuple[str, int]:
    pins = ["aiohttp==3.14.5", "kopf==1.45.2"]
    return audit.told(
        {"crates": audit.rust(tools.run, ["cargo-deny"]), "Python": audit.python(tools.run, "uv", pins)}
    )


def test_both_know_nothing() -> None:
    tools = Tools(known={"jinja2": [KNOWN], "aiohttp": [], "kopf": []})
    assert ask(tools) == ("crates: nothing known\nPython: nothing known\n", 0)
    assert tools.looked_up == [audit.CONTROL, "aiohttp==3.14.5", "kopf==1.45.2"]


def test_what_is_known_is_named_with_its_mend() -> None:
    tools = Tools(crates=1, known={"jinja2": [KNOWN], "aiohttp": [KNOWN], "kopf": []})
    text, code = ask(tools)
    assert code == 1
    assert "crates: error[vulnerability]: RUSTSEC-2026-0001" in text
    assert "Python: aiohttp 3.14.5: PYSEC-2019-217, mended in 2.10.1" in text


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (
            Tools(fetch=1, known={"jinja2": [KNOWN], "aiohttp": [], "kopf": []}),
            "crates: NOT ASKED: Could not",
        ),
        (Tools(known=None), "Python: NOT ASKED: connection refused"),
        # An index that has packages and no advisories: pip-audit itself says that nothing is known, or that
        # it skipped them, and ends with 0.
        (
            Tools(known={"jinja2": [], "aiohttp": [], "kopf": []}),
            "Python: NOT ASKED: it knows nothing of jinja2",
        ),
        (
            Tools(known={}),
            "Python: NOT ASKED: 1 packages were not looked up, the first: Dependency not found",
        ),
        (Tools(known={"jinja2": [KNOWN], "aiohttp": []}), "Python: NOT ASKED: 1 packages were not looked up"),
    ],
)
def test_a_database_that_could_not_be_asked_is_no_clean_bill(tools: Tools, said: str) -> None:
    text, code = ask(tools)
    assert said in text and code == 2
    if "jinja2" in said or not tools.known:
        assert tools.looked_up == [audit.CONTROL], "of the rest nothing could be learned"
