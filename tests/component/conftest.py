"""Fixtures of the component tests."""

from support.operator_fixtures import client, fleet, kubelet, operator, standby

__all__ = ["client", "fleet", "kubelet", "operator", "standby"]
