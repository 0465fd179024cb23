"""The edge to kopf: handlers that wake keys and return."""
