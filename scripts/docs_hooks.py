"""mkdocs hooks: the list of decisions, from the pages themselves."""

import re
from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Puts a link to each decision under the index."""
    if page.file.src_uri != "decisions/index.md":
        return markdown
    folder = Path(config["docs_dir"]) / "decisions"
    lines = [f"- [{path.name[:4]}: {_title(path)}]({path.name})" for path in sorted(folder.glob("[0-9]*.md"))]
    return markdown + "\n" + "\n".join(lines) + "\n"


def _title(path: Path) -> str:
    """The first heading, without a number of its own."""
    heading = path.read_text().splitlines()[0].removeprefix("# ")
    return re.sub(r"^\d+[.:] *", "", heading)
