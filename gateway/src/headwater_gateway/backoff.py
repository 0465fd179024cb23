"""Pauses between attempts."""

import random


class Backoff:
    """Full-jitter exponential backoff in seconds."""

    def __init__(self, rng: random.Random, first: float = 0.1, cap: float = 2.0) -> None:
        self._rng, self._first, self._cap = rng, first, cap
        self._attempt = 0

    def next(self) -> float:
        """The next delay: never 0, so that a loop of failures cannot spin."""
        ceiling = min(self._cap, self._first * 2.0**self._attempt)
        self._attempt = min(self._attempt + 1, 10)
        return ceiling * (0.5 + 0.5 * self._rng.random())

    def reset(self) -> None:
        self._attempt = 0
