"""Fixtures that several kinds of tests share."""

pytest_plugins = ("support.kube", "support.second_try")
