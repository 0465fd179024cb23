"""`headwater simulate`: recordings in, a table and a page out; what is wrong with a file is one line."""

import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from headwater_cli.__main__ import build
from headwater_cli.simulate.demand import InvalidRecording, read_recording
from typer.testing import CliRunner, Result

CSV = """time,region,participants
2030-01-28T08:00:00Z,eu,0
2030-01-28T08:05:00Z,eu,500
2030-01-28T08:25:00Z,eu,500
2030-01-28T08:30:00Z,eu,5
2030-01-28T09:00:00Z,eu,5
"""


def run(*args: str) -> Result:
    return CliRunner().invoke(build(), ["simulate", *args])


def test_a_recording_is_replayed_and_drawn(tmp_path: Path) -> None:
    recording, page = tmp_path / "monday.csv", tmp_path / "out.html"
    recording.write_text(CSV)
    done = run(str(recording), "--html", str(page))
    assert done.exit_code == 0, done.output
    assert re.search(r"eu +500 +5\.0 +1 +\d+ +\d+", done.output)
    assert "nodes deleted, none serving" in done.output
    html = page.read_text()
    (svg,) = re.findall(r"<svg.*?</svg>", html, re.S)
    lines = {node.get("class"): node.get("points", "") for node in ElementTree.fromstring(svg)}
    assert len(lines["desired"].split()) > 100 and len(lines["load"].split()) > 100
    assert "Scale region eu from" in html and "http" not in html


def test_both_formats_and_both_times(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"time": 1895817600, "region": "eu", "participants": 3}\n')
    demand = read_recording(lines)
    assert demand.start == datetime(2030, 1, 28, 8, tzinfo=UTC) and demand.events[0].change == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        ("time,region\n1,eu\n", "record 1: participants is missing"),
        ("time,region,participants\n1,eu,-4\n", "record 1: participants is -4"),
        ("time,region,participants\n1,eu,nan\n", "record 1: participants is nan"),
        ("time,region,participants\nsoon,eu,4\n", "record 1: .*'soon'"),
    ],
)
def test_a_bad_recording_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    recording = tmp_path / "bad.csv"
    recording.write_text(text)
    with pytest.raises(InvalidRecording, match=says):
        read_recording(recording)
    done = run(str(recording))
    assert done.exit_code == 1 and done.output.count("\n") == 1


def test_a_region_that_the_fleet_lacks_is_named(tmp_path: Path) -> None:
    recording = tmp_path / "a.csv"
    recording.write_text(CSV.replace("eu", "mars"))
    examples = Path(__file__).resolve().parents[2] / "crds" / "examples"
    done = run(str(recording), "--cluster", str(examples / "sfucluster-three-regions.yaml"))
    assert done.exit_code == 1
    assert "region mars is not one of SFUCluster three-regions's (eu, us, ap)" in done.output


def test_synthetic_load_on_a_fleet_from_a_file(tmp_path: Path) -> None:
    examples = Path(__file__).resolve().parents[2] / "crds" / "examples"
    cluster = str(examples / "sfucluster-autoscaled.yaml")
    done = run("--cluster", cluster, "--days", "0.1", "--meetings", "20", "--step", "60")
    assert done.exit_code == 0 and "eu" in done.output and "simulated: 2.4 hours" in done.output
