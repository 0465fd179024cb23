"""Headwater's TURN node: an agent that configures, feeds, watches and drains one coturn process."""
