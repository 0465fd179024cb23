"""What Headwater ships of others: a CycloneDX bill of materials and a licence report, from the lock files.

`python scripts/sbom.py OUT` writes OUT/sbom.cdx.json and OUT/licences.md. Exit code 1: a licence is not on
the list. Python: what the programs need, without the tools of development; licences are read from what is
installed. Rust: the engine's crates, as cargo knows them. npm: the demo page's library.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
ALLOWED: Final = frozenset(
    (
        "Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "ISC", "Zlib", "CC0-1.0",
        "Unicode-3.0", "Unlicense", "PSF-2.0", "CNRI-Python", "MPL-2.0", "LLVM-exception", "BSD",
    )
)  # fmt: skip
# Names that packages used before SPDX's.
OLDER: Final = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "BSD",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


# Needed by older Python versions than the one that this runs with.
NOT_INSTALLED: Final = {"async-timeout": "Apache-2.0"}
ENGINE: Final = "headwater-sfu-py"


@dataclass(frozen=True, slots=True)
class Component:
    """One package that is shipped. `licence`: an SPDX expression, or "" where it is unknown."""

    kind: str  # of the package URL: pypi, cargo, npm
    name: str
    version: str
    licence: str
    sha256: str = ""

    @property
    def purl(self) -> str:
        return f"pkg:{self.kind}/{self.name.replace('@', '%40')}@{self.version}"


def is_allowed(licence: str) -> bool:
    """Whether an SPDX expression can be met with licences of the list: any side of OR, all sides of AND."""
    text = licence.replace("/", " OR ").strip()
    if not text:
        return False
    ors, depth, parts = [""], 0, re.findall(r"[()]|[^\s()]+", text)
    for part in parts:
        depth += (part == "(") - (part == ")")
        if part == "OR" and depth == 0:
            ors.append("")
        else:
            ors[-1] += f" {part}"
    if len(ors) > 1:
        return any(is_allowed(side) for side in ors)
    if text.startswith("(") and text.endswith(")") and " AND " not in _outside(text):
        return is_allowed(text[1:-1])
    sides = re.findall(r"\([^()]*\)|[^\s()]+", text)
    return all(
        is_allowed(side[1:-1]) if side.startswith("(") else side in ALLOWED
        for side in sides
        if side not in ("AND", "WITH")
    )


def _outside(text: str) -> str:
    return re.sub(r"\([^()]*\)", "", text)


def python_components() -> Iterator[Component]:
    """What the workspace's programs need, by uv.lock."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    packages: dict[str, dict[str, Any]] = {package["name"]: package for package in lock["package"]}
    wanted = [name for name, package in packages.items() if "editable" in package["source"]]
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        package = packages[name]
        groups = [package.get("dependencies", ()), *package.get("optional-dependencies", {}).values()]
        wanted += [need["name"] for group in groups for need in group]
    for name in sorted(seen):
        package = packages[name]
        digest = package.get("sdist", {}).get("hash", "").removeprefix("sha256:")
        yield Component("pypi", name, package["version"], _installed_licence(name), digest)


def _installed_licence(name: str) -> str:
    try:
        about = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED.get(name, "")
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    classified = [
        c.rsplit(" :: ", 1)[1] for c in about.get_all("Classifier") or () if c.startswith("License ::")
    ]
    named = [c for c in classified if c != "OSI Approved"] or [about.get("License") or ""]
    return OLDER.get(named[0], named[0])


def rust_components() -> Iterator[Component]:
    """The engine's crates, by Cargo.lock. Raises CalledProcessError where cargo cannot tell offline."""
    manifest = ROOT / "sfu-node" / "Cargo.toml"
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--manifest-path={manifest}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    lock = tomllib.loads((ROOT / "sfu-node" / "Cargo.lock").read_text())
    digests = {(crate["name"], crate["version"]): crate.get("checksum", "") for crate in lock["package"]}
    graph = json.loads(told)
    shipped = _shipped(graph["resolve"]["nodes"], [c["id"] for c in graph["packages"] if c["name"] == ENGINE])
    for crate in (crate for crate in graph["packages"] if crate["id"] in shipped):
        name, version = crate["name"], crate["version"]
        licence = crate["license"] or ("Apache-2.0" if crate["source"] is None else "")
        yield Component("cargo", name, version, licence, digests.get((name, version), ""))


def _shipped(nodes: list[dict[str, Any]], roots: list[str]) -> set[str]:
    """The crates that are in the module or build it; what only tests use is neither."""
    needs = {
        node["id"]: [d["pkg"] for d in node["deps"] if any(k["kind"] != "dev" for k in d["dep_kinds"])]
        for node in nodes
    }
    found: set[str] = set()
    while roots:
        crate = roots.pop()
        if crate not in found:
            found.add(crate)
            roots += needs[crate]
    return found


def npm_components() -> Iterator[Component]:
    """What the demo page loads, by its package-lock.json."""
    lock = json.loads((ROOT / "gateway" / "web" / "package-lock.json").read_text())
    for path, package in lock["packages"].items():
        if path and not package.get("dev"):
            yield Component(
                "npm", path.removeprefix("node_modules/"), package["version"], package.get("license", "")
            )


def document(components: list[Component]) -> dict[str, Any]:
    """CycloneDX 1.5, the same for the same lock files."""
    shown = []
    for one in components:
        entry: dict[str, Any] = {"type": "library", "bom-ref": one.purl, "purl": one.purl}
        entry |= {"name": one.name, "version": one.version}
        if one.licence:
            entry["licenses"] = [{"expression": one.licence}]
        if one.sha256:
            entry["hashes"] = [{"alg": "SHA-256", "content": one.sha256}]
        shown.append(entry)
    about = {"component": {"type": "application", "name": "headwater", "bom-ref": "headwater"}}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": about,
        "components": shown,
    }


def report(components: list[Component]) -> str:
    """A line for each package, those that are not allowed first."""
    rows = sorted(components, key=lambda one: (is_allowed(one.licence), one.kind, one.name))
    lines = [
        f"| {one.kind} | {one.name} | {one.version} | {one.licence or 'unknown'} |"
        f" {'yes' if is_allowed(one.licence) else '**no**'} |"
        for one in rows
    ]
    head = ["# Licences", "", "| From | Package | Version | Licence | Allowed |", "|---|---|---|---|---|"]
    return "\n".join([*head, *lines, ""])


def collect() -> list[Component]:
    return [*python_components(), *rust_components(), *npm_components()]


def main() -> int:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    components = collect()
    (out / "sbom.cdx.json").write_text(json.dumps(document(components), indent=1) + "\n")
    (out / "licences.md").write_text(report(components))
    bad = [one.purl for one in components if not is_allowed(one.licence)]
    sys.stdout.write(f"{len(components)} packages, licences not allowed: {', '.join(bad) or 'none'}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
