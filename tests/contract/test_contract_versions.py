"""One version for everything that is released."""

import re
import tomllib
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]


def test_packages_engine_and_charts_have_one_version() -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    versions = {"pyproject.toml": about["project"]["version"]}
    for member in about["tool"]["uv"]["workspace"]["members"]:
        project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]
        versions[project["name"]] = project["version"]
    cargo = tomllib.loads((ROOT / "sfu-node" / "Cargo.toml").read_text())
    versions["sfu-node/Cargo.toml"] = cargo["workspace"]["package"]["version"]
    for chart in ("headwater", "headwater-crds"):
        told = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())
        versions |= {f"{chart}: version": told["version"], f"{chart}: appVersion": str(told["appVersion"])}
        images = told.get("annotations", {}).get("artifacthub.io/images", "")
        versions |= {f"{chart}: {name}": tag for name, tag in re.findall(r"image: (\S+):(\S+)", images)}
    wanted = versions["pyproject.toml"]
    assert {name: version for name, version in versions.items() if version != wanted} == {}
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", wanted)
