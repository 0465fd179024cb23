"""`helm install` and `helm upgrade --install` for the documentation's test: Helm's own engine renders the
chart with the values given, and the cluster takes every object in a dry run. Nothing is installed.

Arguments: the sandbox's binary, then helm's own.
"""

import argparse
import subprocess
import sys
from typing import Any

import yaml


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("verb", choices=("install", "upgrade"))
    parser.add_argument("release")
    parser.add_argument("chart")
    parser.add_argument("-n", "--namespace", default="default")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("-f", "--values", action="append", default=[])
    parser.add_argument("--set", action="append", default=[], dest="set_")
    said = parser.parse_args()
    values: dict[str, Any] = {}
    for path in said.values:
        with open(path) as file:
            values |= yaml.safe_load(file)
    for one in said.set_:
        key, _, value = one.partition("=")
        put(values, key.split("."), yaml.safe_load(value))
    rendered = subprocess.run(
        [said.binary, "render", "--name", said.release, "--namespace", said.namespace, "--values", "-",
         said.chart],
        input=yaml.safe_dump(values), stdout=subprocess.PIPE, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    # Fields may be taken over: the sandbox's own installation has cluster-wide objects of these names.
    taken = subprocess.run(
        ["kubectl", "apply", "-n", said.namespace, "--server-side", "--force-conflicts", "--dry-run=server",
         "--validate=strict", "-f", "-"],
        input=rendered, text=True, timeout=30, check=False,
    )  # fmt: skip
    return taken.returncode


def put(values: dict[str, Any], path: list[str], value: object) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


if __name__ == "__main__":
    sys.exit(main())
