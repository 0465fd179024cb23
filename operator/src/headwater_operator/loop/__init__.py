"""Observe, plan, act, report: level-triggered loops over coalescing keyed queues."""
