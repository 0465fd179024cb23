"""What must hold of every image: pinned bases, no root at run time, sources that exist, our licence."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "images").glob("*.Containerfile"))


@dataclass(frozen=True)
class Line:
    word: str
    rest: str


def parse(path: Path) -> list[Line]:
    """Instructions in order, continuation lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n", " ", text)
    lines = [line.strip() for line in joined.splitlines() if line.strip()]
    return [Line(*line.split(None, 1)) for line in lines]


def last_stage(lines: list[Line]) -> list[Line]:
    start = max(index for index, line in enumerate(lines) if line.word == "FROM")
    return lines[start:]


def test_there_are_images() -> None:
    assert {path.name for path in FILES} >= {"control.Containerfile", "sfu-node.Containerfile"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_image_does_not_run_as_root(path: Path) -> None:
    users = [line.rest for line in last_stage(parse(path)) if line.word == "USER"]
    # A number: the kubelet cannot tell whether a name is root (runAsNonRoot).
    assert users and re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), users


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bases_are_pinned_and_nothing_is_fetched_by_address(path: Path) -> None:
    lines = parse(path)
    arguments = dict(line.rest.split("=", 1) for line in lines if line.word == "ARG")
    stages = {line.rest.split(" AS ")[1] for line in lines if line.word == "FROM" and " AS " in line.rest}
    for line in lines:
        if line.word == "FROM":
            name = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], line.rest.split()[0])
            assert name in stages or (":" in name and not name.endswith(":latest")), name
        assert line.word != "ADD", "COPY says what it does"
        assert "http://" not in line.rest and "curl " not in line.rest, line.rest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_copied_exists(path: Path) -> None:
    stages = set()
    for line in parse(path):
        if line.word == "FROM" and " AS " in line.rest:
            stages.add(line.rest.split(" AS ")[1])
        if line.word == "COPY":
            words = line.rest.split()
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in stages, line.rest
            else:
                assert all((ROOT / source).exists() for source in words[:-1]), line.rest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_image_carries_its_licence_and_one_program(path: Path) -> None:
    final = last_stage(parse(path))
    assert any(line.word == "COPY" and line.rest == "LICENSE /licenses/LICENSE" for line in final)
    assert any('org.opencontainers.image.licenses="Apache-2.0"' in line.rest for line in final)
    assert final[-1].word in ("ENTRYPOINT", "CMD")
