"""Generates headwater_api.nodev1 from the node's proto. `--check` fails when committed stubs are stale."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO = HERE / "proto" / "headwater" / "node" / "v1"
PACKAGE = "headwater_api/nodev1"
FILES = ("node_pb2.py", "node_pb2.pyi", "node_pb2_grpc.py", "node_pb2_grpc.pyi")


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    args = parser.parse_args()
    if not args.check:
        generate(HERE / "src")
        return 0
    with tempfile.TemporaryDirectory() as tmp:
        generate(Path(tmp))
        _, wrong, missing = filecmp.cmpfiles(
            Path(tmp) / PACKAGE, HERE / "src" / PACKAGE, FILES, shallow=False
        )
    if wrong or missing:
        sys.stderr.write(f"stale stubs: {', '.join([*wrong, *missing])}; run `make generate`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
