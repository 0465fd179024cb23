"""What is shipped of others: all of it is on the bill, and may be shipped."""

import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))
import sbom  # noqa: E402


def test_every_package_is_on_the_bill_and_may_be_shipped() -> None:
    components = sbom.collect()
    assert [one.purl for one in components if not sbom.is_allowed(one.licence)] == []
    names = {(one.kind, one.name) for one in components}
    assert {("pypi", "aiohttp"), ("cargo", "dimpl"), ("npm", "livekit-client")} <= names
    assert ("pypi", "pytest") not in names and ("cargo", "goog_cc") not in names, "tests are not shipped"
    for program in ("crds", "planner", "operator", "gateway", "sfu-node", "turn-node", "cli", "sandbox"):
        project = tomllib.loads((ROOT / program / "pyproject.toml").read_text())["project"]
        for need in project["dependencies"]:
            name = need.split(">")[0].split("[")[0].split("=")[0].strip().lower()
            assert ("pypi", name) in names, f"{program} needs {need}"
    shown = sbom.document(components)["components"]
    assert len({one["bom-ref"] for one in shown}) == len(shown) > 150
    assert all(one["licenses"] and one["purl"].endswith(one["version"]) for one in shown)


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT OR Apache-2.0", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", True),
        ("ISC AND (GPL-3.0-only OR AGPL-3.0-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT/Apache-2.0", True),
        ("GPL-3.0-only", False),
        ("", False),
    ],
)
def test_expressions_of_licences(licence: str, allowed: bool) -> None:
    assert sbom.is_allowed(licence) is allowed
