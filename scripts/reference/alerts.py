"""The alerts, from the rules that the chart installs."""

import re
from pathlib import Path

import yaml
from text import cell, code, table

ORDER = ("critical", "warning", "info")


def page(path: Path) -> str:
    """A row for each alert, the worst first, with its runbook page; then the recording rules."""
    rules = [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    alerts = sorted((r for r in rules if "alert" in r), key=lambda r: ORDER.index(r["labels"]["severity"]))
    rows = [
        (
            f"[{r['alert']}](../runbook/{r['alert']}.md)",
            r["labels"]["severity"],
            r["for"],
            re.sub(r"\{\{.*?\}\}", "…", cell(r["annotations"]["summary"])),
        )
        for r in alerts
    ]
    recorded = [(code(r["record"]),) for r in rules if "record" in r]
    return (
        "# Alerts\n\nInstalled by `prometheus.prometheusRule.enabled`; the file is "
        "`charts/headwater/files/rules.yaml`.\n\n"
        + table(("Alert", "Severity", "After", "What it says"), rows)
        + "\n## Recording rules\n\n"
        + table(("Series",), recorded)
    )
