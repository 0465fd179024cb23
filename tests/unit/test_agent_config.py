"""The Pod's environment, read and checked."""

import pytest
from headwater_api.wellknown import ENV_DRAIN_GRACE
from headwater_sfu.config import ConfigError, read_config
from headwater_sfu.usage import Sample, cpu_percent

GOOD = {
    "POD_NAME": "demo-eu-0",
    "POD_IP": "127.16.0.5",
    "HEADWATER_REGION": "eu",
    "HEADWATER_CLUSTER": "demo",
    "HEADWATER_NODE_TOKEN": "secret-token",
}


def test_the_contract_is_read() -> None:
    config = read_config(GOOD | {"HEADWATER_MAX_CONNECTIONS": "250", ENV_DRAIN_GRACE: "0.5"})

    assert config.address(7882) == "127.16.0.5:7882"
    assert (config.node_id, config.max_connections, config.drain_grace_s) == ("demo-eu-0", 250, 0.5)
    assert "secret-token" not in repr(config)


def test_an_ipv6_address_is_bracketed() -> None:
    assert read_config(GOOD | {"POD_IP": "::1"}).address(7900) == "[::1]:7900"


@pytest.mark.parametrize("name", sorted(GOOD))
def test_each_missing_variable_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        read_config({k: v for k, v in GOOD.items() if k != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POD_IP", "eu-node"),
        ("POD_IP", "0.0.0.0"),
        ("HEADWATER_MAX_CONNECTIONS", "0"),
        ("HEADWATER_MAX_CONNECTIONS", "many"),
        (ENV_DRAIN_GRACE, "-1"),
        (ENV_DRAIN_GRACE, "nan"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        read_config(GOOD | {name: value})


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_config({})
    assert len(str(caught.value).splitlines()) == len(GOOD)


def test_cpu_percent_is_of_all_cores() -> None:
    assert cpu_percent(Sample(1.0, 10.0), Sample(2.0, 11.0), cores=2) == 50.0
    assert cpu_percent(Sample(1.0, 10.0), Sample(1.0, 10.0), cores=2) == 0.0
