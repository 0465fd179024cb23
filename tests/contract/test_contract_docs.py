"""The documentation builds without a warning, fetches nothing, and its generated pages are up to date."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
MKDOCS: Final = Path(sys.executable).with_name("mkdocs")
# What a browser fetches by itself; a link that somebody clicks is not.
FETCHED: Final = re.compile(
    r"""<(?:script|img|iframe|source|audio|video)\b[^>]*\bsrc=["']?((?:https?:)?//[^"' >]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon|modulepreload))"""
    r"""[^>]*\bhref=["']?((?:https?:)?//[^"' >]+)"""
    r"""|url\(\s*["']?((?:https?:)?//[^)"']+)"""
)


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(MKDOCS), "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={
            **os.environ,
            "NO_MKDOCS_2_WARNING": "1",
        },  # an advertisement of the theme's, not about our pages
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 50
    for path in (*pages, *tmp_path.rglob("*.css")):
        found = FETCHED.search(path.read_text())
        assert found is None, f"{path.relative_to(tmp_path)}: {found}"
    for alert in (ROOT / "docs" / "runbook").glob("Headwater*.md"):
        assert (tmp_path / "runbook" / alert.stem / "index.html").is_file(), "alerts link here"


def test_what_a_browser_would_fetch_is_recognised() -> None:
    assert FETCHED.search('<link rel="stylesheet" href="https://fonts.example/css">')
    assert FETCHED.search('<script src="//cdn.example/x.js"></script>')
    assert FETCHED.search("background: url(https://img.example/a.png)")
    assert not FETCHED.search('<a href="https://example.com">') and not FETCHED.search(
        '<link rel="canonical" href="https://h">'
    )


def test_generated_pages_and_dashboards_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference"), "--check"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_files_of_the_repository_that_pages_name_are_there() -> None:
    named = re.compile(r"`([a-z-]+/[\w./-]+\.(?:py|rs|go|yaml|toml|proto|md))`")
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    gone = {
        (page.name, name)
        for page in pages
        for name in named.findall(page.read_text())
        if (ROOT / name.split("/")[0]).is_dir() and not (ROOT / name).is_file() and "NNNN" not in name
    }
    assert len(pages) > 50 and gone == set()
