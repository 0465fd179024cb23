"""The environment that the operator gives an agent's Pod: values checked, faults collected."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


class Environ:
    """Reads variables. What is wrong with them is a line each in `problems`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[str] = []

    def text(self, name: str) -> str:
        """Empty where it is absent."""
        return self._env.get(name, "").strip()

    def required(self, name: str) -> str:
        """Empty where it is absent, which is a problem."""
        value = self.text(name)
        if not value:
            self.problems.append(f"{name} is not set: the Pod template must provide it")
        return value

    def number(self, name: str, default: float, bounds: tuple[float, float]) -> float:
        """`default` where it is absent, or not a number within `bounds`, which is a problem."""
        text = self.text(name)
        if not text:
            return default
        low, high = bounds
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            self.problems.append(f"{name}={text!r} must be a number from {low:g} to {high:g}")
            return default
        return value

    def address(self, name: str) -> Address | None:
        """An address to bind; None where it is absent or of no use, which is a problem."""
        text = self.required(name)
        if not text:
            return None
        try:
            parsed = ip_address(text)
        except ValueError:
            self.problems.append(f"{name}={text!r} is not an IP address")
            return None
        if parsed.is_unspecified:
            # A socket bound to the wildcard answers from another source address and ICE fails.
            self.problems.append(f"{name}={text!r} is the wildcard: give the Pod's own address")
            return None
        return parsed
