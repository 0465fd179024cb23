"""A simulation as one HTML page that needs nothing else: load against nodes by region, and each decision."""

from collections.abc import Sequence
from datetime import datetime
from html import escape

from headwater_cli.simulate.run import Change, Outcome, Sample

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 220, 44, 24
_MAX_POINTS = 1500
_MAX_CHANGES = 2000
_STYLE = """
body{font:14px system-ui,sans-serif;margin:2rem auto;max-width:1020px;color:#1c2733;background:#fff}
h1{font-size:1.3rem} h2{font-size:1rem;margin:1.6rem 0 .3rem} svg{width:100%;height:auto}
text{font-size:11px;fill:#5b6b7a} .axis{stroke:#c9d3dc} .load{fill:#9cc9e8;stroke:none}
.waiting{fill:#e2564b;stroke:none} .desired{fill:none;stroke:#1c2733;stroke-width:1.5}
.ready{fill:none;stroke:#2e9e5b;stroke-width:1.5;stroke-dasharray:5 3}
table{border-collapse:collapse;width:100%} td{padding:.2rem .6rem .2rem 0;vertical-align:top}
td:first-child{white-space:nowrap;color:#5b6b7a} .key span{margin-right:1.2rem}
.key i{display:inline-block;width:1.4em;height:.7em;margin-right:.4em}
"""


def render_html(title: str, outcome: Outcome, summary: Sequence[tuple[str, str]]) -> str:
    """The page. `summary`: names and values to show above the charts."""
    regions = sorted({sample.region for sample in outcome.samples})
    charts = "".join(
        f"<h2>{escape(region)}</h2>{_chart([s for s in outcome.samples if s.region == region])}"
        for region in regions
    )
    facts = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in summary)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><table>{facts}</table>"
        '<p class="key"><span><i style="background:#9cc9e8"></i>load, in full nodes</span>'
        '<span><i style="background:#e2564b"></i>waiting for a place</span>'
        '<span><i style="background:#1c2733"></i>nodes wanted</span>'
        '<span><i style="background:#2e9e5b"></i>nodes that take participants</span></p>'
        f"{charts}<h2>Decisions</h2><table>{_decisions(outcome.changes)}</table></html>\n"
    )


def _chart(samples: Sequence[Sample]) -> str:
    samples = _thin(samples)
    first, last = samples[0].at, samples[-1].at
    span_s = max(1.0, (last - first).total_seconds())
    top = max(1.0, *(max(s.load, s.desired, s.ready) for s in samples)) * 1.05

    def x(at: datetime) -> float:
        return _LEFT + (at - first).total_seconds() / span_s * (_WIDTH - _LEFT - 8)

    def y(value: float) -> float:
        return (_HEIGHT - _BOTTOM) * (1 - value / top)

    def area(values: Sequence[float], base: Sequence[float]) -> str:
        upper = [f"{x(s.at):.1f},{y(v):.1f}" for s, v in zip(samples, values, strict=True)]
        lower = [f"{x(s.at):.1f},{y(v):.1f}" for s, v in zip(samples, base, strict=True)]
        return " ".join((*upper, *reversed(lower)))

    def steps(values: Sequence[int]) -> str:
        points, before = [], values[0]
        for sample, value in zip(samples, values, strict=True):
            points += [f"{x(sample.at):.1f},{y(before):.1f}", f"{x(sample.at):.1f},{y(value):.1f}"]
            before = value
        return " ".join(points)

    served = [s.load * s.participants / max(1, s.participants + s.waiting) for s in samples]
    marks = "".join(
        f'<text x="{_LEFT - 6}" y="{y(top * part) + 4:.1f}" text-anchor="end">{top * part:.0f}</text>'
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{y(top * part):.1f}" y2="{y(top * part):.1f}"/>'
        for part in (0.0, 0.5, 0.95)
    )
    times = "".join(
        f'<text x="{x(at):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{at:%a %H:%M}</text>'
        for at in (first + (last - first) * part for part in (0.05, 0.25, 0.5, 0.75, 0.95))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{marks}{times}'
        f'<polygon class="load" points="{area(served, [0.0] * len(samples))}"/>'
        f'<polygon class="waiting" points="{area([s.load for s in samples], served)}"/>'
        f'<polyline class="ready" points="{steps([s.ready for s in samples])}"/>'
        f'<polyline class="desired" points="{steps([s.desired for s in samples])}"/></svg>'
    )


def _thin(samples: Sequence[Sample]) -> Sequence[Sample]:
    """As many as a screen has columns; of each group the one with the most load, so that no peak is lost."""
    size = -(-len(samples) // _MAX_POINTS)
    groups = (samples[start : start + size] for start in range(0, len(samples), size))
    return [max(group, key=lambda sample: (sample.load, sample.desired)) for group in groups]


def _decisions(changes: Sequence[Change]) -> str:
    rows = [
        f"<tr><td>{change.at:%a %H:%M:%S}</td><td>{escape(change.decision.sentence)}</td></tr>"
        for change in changes[:_MAX_CHANGES]
    ]
    if len(changes) > _MAX_CHANGES:
        rows.append(f"<tr><td></td><td>and {len(changes) - _MAX_CHANGES} more</td></tr>")
    return "".join(rows)
