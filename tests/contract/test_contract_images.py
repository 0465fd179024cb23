"""What must hold of every image: pinned slim bases, no root and nothing to write at run time, no tools of the
build, sources that exist, every module that its programs import, our licence."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "images").glob("*.Containerfile"))
COMPILERS = ("build-essential", "gcc", "cargo", "rustup", "npm", "uv")


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
    assert {path.stem for path in FILES} == {
        "control",
        "sfu-node",
        "turn-node",
    }


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_of_the_build_is_left_in_the_image(path: Path) -> None:
    lines = parse(path)
    arguments = dict(line.rest.split("=", 1) for line in lines if line.word == "ARG")
    final = last_stage(lines)
    assert sum(line.word == "FROM" for line in lines) >= 2
    assert "-slim" in arguments[final[0].rest.strip("${}")]
    copied = [line.rest for line in final if line.word == "COPY"]
    assert all(rest.startswith("--from=") or rest.startswith("LICENSE ") for rest in copied), copied
    installed = " ".join(line.rest for line in final if line.word == "RUN").split()
    assert not set(installed) & set(COMPILERS), installed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_image_lives_with_a_root_file_system_that_cannot_be_written(path: Path) -> None:
    final = last_stage(parse(path))
    environment = " ".join(line.rest for line in final if line.word == "ENV").split()
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert not [line for line in final if line.word == "VOLUME"]
    # Byte code is made while building, since it cannot be at run time.
    assert any("UV_COMPILE_BYTECODE=1" in line.rest for line in parse(path) if line.word == "ENV")


@cache
def lock() -> dict[str, dict[str, Any]]:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return {package["name"]: package for package in packages}


def installed_by(path: Path) -> set[str]:
    """Every package that the image's `uv sync` commands install, by the lock file."""
    wanted = []
    for line in parse(path):
        for command in line.rest.split("&&") if line.word == "RUN" else ():
            words = command.split()
            if words[:2] == ["uv", "sync"]:
                assert "--frozen" in words and "--no-dev" in words and "--no-editable" in words, command
                options = list(pairwise(words))
                (package,) = (value for option, value in options if option == "--package")
                wanted.append((package, tuple(value for option, value in options if option == "--extra")))
    seen = set()
    while wanted:
        name, extras = one = wanted.pop()
        if one not in seen:
            seen.add(one)
            optional = lock()[name].get("optional-dependencies", {})
            needs = [*lock()[name].get("dependencies", ()), *(n for extra in extras for n in optional[extra])]
            wanted += [(need["name"], tuple(need.get("extra", ()))) for need in needs]
    return {name for name, _ in seen}


def needed(node: ast.AST) -> Iterator[ast.AST]:
    """What is run with a module whose optional imports are not there."""
    yield node
    optional = isinstance(node, ast.Try) and any(
        handler.type is not None and "ImportError" in ast.unparse(handler.type) for handler in node.handlers
    )
    typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in ast.iter_child_nodes(node):
        if not ((optional or typing) and child in node.body):  # type: ignore[attr-defined]
            yield from needed(child)


def imported(package: str) -> Iterator[tuple[str, str]]:
    """(file, top-level module) of each import in the sources of a package of this workspace.

    Left out is what a module knows how to do without: what it asks for in a `try` with `except ImportError`,
    or for its types alone.
    """
    folder = ROOT / lock()[package]["source"]["editable"]
    for file in [*folder.glob("src/headwater_*/**/*.py"), *folder.glob("python/headwater_*/**/*.py")]:
        for node in needed(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file.name, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield file.name, node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_image_has_every_module_that_its_programs_import(path: Path) -> None:
    names = installed_by(path)
    ours = {name for name in names if name.startswith("headwater-")}
    assert len(ours) >= 2, "the program and the contract"
    owners = packages_distributions()
    missing = {
        f"{file}: {module}"
        for package in ours
        for file, module in imported(package)
        if module not in sys.stdlib_module_names
        and not {owner.lower().replace("_", "-") for owner in owners.get(module, [module])} & names
    }
    assert missing == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_images_programs_are_installed_in_it(path: Path) -> None:
    scripts: set[str] = set()
    for name in installed_by(path):
        if "editable" in lock()[name]["source"]:
            about = tomllib.loads((ROOT / lock()[name]["source"]["editable"] / "pyproject.toml").read_text())
            scripts |= about["project"].get("scripts", {}).keys()
    command = last_stage(parse(path))[-1].rest
    assert set(re.findall(r"headwater-\w+", command)) <= scripts and "headwater-" in command
