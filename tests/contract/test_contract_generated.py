"""What is generated is fresh, and the contract package stays pure."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "crds" / "src" / "headwater_api"
FORBIDDEN = {"kopf", "aiohttp", "asyncio", "random", "time", "socket", "kubernetes"}


def test_the_wire_stubs_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "crds" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PATH": str(Path(sys.executable).parent)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(API.glob("*.py")), ids=lambda path: path.stem)
def test_the_contract_does_no_io(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    assert not imported & FORBIDDEN
