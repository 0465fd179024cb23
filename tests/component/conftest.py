"""Fixtures of the component tests."""

from support.operator_fixtures import client, fleet, kubelet, leader, operator, standby

__all__ = ["client", "fleet", "kubelet", "leader", "operator", "standby"]
