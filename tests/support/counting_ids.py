"""The room's source of ids, in order, so that a run can be repeated."""

import itertools


class CountingIds:
    """Ids in order."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def sid(self, prefix: str) -> str:
        return f"{prefix}{next(self._next)}"

    def secret(self, length: int) -> bytes:
        return next(self._next).to_bytes(length, "big")

    def number(self) -> int:
        return next(self._next)
