"""The fenced blocks of a page that a reader would type or save."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# ```console            lines after "$ " are run, what follows them is an example of the output
# ```console title="Not run by a test: why"
# ```yaml title="NAME"  a file that commands below use
FENCE: Final = re.compile(r"^( *)```(\w*)(?: +title=\"([^\"]*)\")?\n(.*?)^\1```$", re.M | re.S)
NOT_RUN: Final = "Not run by a test: "
SHELLS: Final = ("sh", "bash", "shell", "zsh")


@dataclass(frozen=True)
class Block:
    """Commands, or a file where `name` is given. `reason`: why no test runs it."""

    commands: tuple[str, ...] = ()
    reason: str = ""
    name: str = ""
    text: str = ""


def pages_of(root: Path) -> list[Path]:
    """The pages whose commands count, in the order in which they are run."""
    written = [path for path in sorted((root / "docs").rglob("*.md")) if path.parent.name != "reference"]
    others = [root / name for name in ("README.md", "CONTRIBUTING.md", "sandbox/README.md")]
    return [*others, *written]


def read_blocks(path: Path) -> list[Block]:
    """Raises ValueError where a block of commands is marked in no known way."""
    found = []
    for indent, language, title, body in FENCE.findall(path.read_text()):
        text = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        if language in SHELLS:
            raise ValueError(f"{path.name}: write ```console with `$ `, not ```{language}")
        if language == "console":
            commands = _commands(text)
            if not commands:
                raise ValueError(f"{path.name}: a console block without `$ `: {text[:60]}")
            if title and not title.startswith(NOT_RUN):
                raise ValueError(f"{path.name}: {title!r} must start with {NOT_RUN!r}")
            found.append(Block(commands, reason=title.removeprefix(NOT_RUN)))
        elif title and language in ("yaml", "csv"):
            found.append(Block(name=title, text=text))
    return found


def _commands(text: str) -> tuple[str, ...]:
    """Lines after "$ ", with those that a backslash or "> " continues."""
    commands: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append(line[2:])
        elif commands and (commands[-1].endswith("\\") or line.startswith("> ")):
            commands[-1] += "\n" + line.removeprefix("> ")
    return tuple(commands)
