"""Where a fleet's figures for scaling come from: the nodes' own reports, or a Prometheus server."""
