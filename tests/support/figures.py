"""Figures of fault loops: percentiles of one run, and of all runs so far where a folder keeps them.

HEADWATER_CHAOS_FIGURES names that folder: a long loop may then be run in parts.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from headwater_sandbox.demo.judge import percentile

FOLDER = "HEADWATER_CHAOS_FIGURES"


@dataclass
class Figures:
    """The values of one loop, by name: milliseconds, unless the name says otherwise."""

    loop: str
    values: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        folder = os.environ.get(FOLDER)
        self._file = Path(folder) / f"{self.loop}.jsonl" if folder else None
        for line in self._file.read_text().splitlines() if self._file and self._file.exists() else ():
            for name, values in json.loads(line).items():
                self.values.setdefault(name, []).extend(values)

    def add(self, **rows: Iterable[float]) -> None:
        """The values of one round. Kept at once: a run that is broken off has counted so far."""
        kept = {name: [round(value) for value in values] for name, values in rows.items()}
        for name, values in kept.items():
            self.values.setdefault(name, []).extend(values)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as out:
                out.write(json.dumps(kept) + "\n")

    def at(self, name: str, share: float) -> float:
        """A percentile of all runs, by nearest rank."""
        return percentile(self.values.get(name, []), share)

    def longest(self, name: str) -> int:
        return max(self.values.get(name, []), default=0)

    def told(self) -> str:
        """One line for each name."""
        lines = []
        for name, values in self.values.items():
            shares = " ".join(f"p{100 * q:g} {percentile(values, q):.0f}" for q in (0.5, 0.95, 0.99))
            lines.append(f"{self.loop} {name}: N {len(values)}, {shares}, longest {max(values, default=0)}")
        return "\n".join(lines)
