"""Generates what is derived from the contract. `--check` writes nothing and fails when something is stale.

headwater_api.nodev1 from the node's proto; the CRDs in the chart headwater-crds from the YAML files here.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO = HERE / "proto" / "headwater" / "node" / "v1"
PACKAGE = "headwater_api/nodev1"
FILES = ("node_pb2.py", "node_pb2.pyi", "node_pb2_grpc.py", "node_pb2_grpc.pyi")
CHART_CRDS = HERE.parent / "charts" / "headwater-crds" / "files"


def generate(out: Path) -> None:
    """Writes the four stub files below `out`. Raises RuntimeError when protoc refuses the proto."""
    code = protoc.main(
        [
            "protoc",
            f"-I{PACKAGE}={PROTO}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out={out}",
            f"--mypy_grpc_out={out}",
            f"{PACKAGE}/node.proto",
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")


def copy_crds(out: Path) -> None:
    """Puts the CRDs where the chart can read them: Helm sees no file outside its chart."""
    for crd in sorted(HERE.glob("*.yaml")):
        shutil.copyfile(crd, out / crd.name)


def stale() -> list[str]:
    """The derived files that differ from what would be written now, or are missing, or have no source."""
    with tempfile.TemporaryDirectory() as tmp:
        generate(Path(tmp))
        _, wrong, missing = filecmp.cmpfiles(
            Path(tmp) / PACKAGE, HERE / "src" / PACKAGE, FILES, shallow=False
        )
    names = sorted({path.name for path in (*HERE.glob("*.yaml"), *CHART_CRDS.glob("*.yaml"))})
    _, other, lost = filecmp.cmpfiles(HERE, CHART_CRDS, names, shallow=False)
    return [*wrong, *missing, *(f"charts/headwater-crds/files/{name}" for name in (*other, *lost))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    if not parser.parse_args().check:
        generate(HERE / "src")
        copy_crds(CHART_CRDS)
        return 0
    found = stale()
    if found:
        sys.stderr.write(f"stale: {', '.join(found)}; run `make generate`\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
