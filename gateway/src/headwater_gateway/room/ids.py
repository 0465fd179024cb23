"""Ids and secrets of the operating system's randomness."""

import os
import string
from typing import Final

ALPHABET: Final = string.ascii_letters + string.digits
SID_LENGTH: Final = 12  # 71 bits
DRAWN: Final = 16  # bytes: so many more that no letter is likelier than another by more than 2^-57
FETCHED: Final = 2048  # bytes: a call of the kernel costs more than what a join draws

_PAIRS: Final = tuple(first + second for first in ALPHABET for second in ALPHABET)


class SystemIds:
    """The IdSource of a running gateway. Each byte that was fetched is used once."""

    def __init__(self) -> None:
        self._fetched, self._used = b"", 0

    def sid(self, prefix: str) -> str:
        """`prefix` and 12 letters and digits."""
        rest, pairs = int.from_bytes(self.secret(DRAWN)), [prefix]
        for _ in range(SID_LENGTH // 2):
            rest, index = divmod(rest, len(_PAIRS))
            pairs.append(_PAIRS[index])
        return "".join(pairs)

    def secret(self, length: int) -> bytes:
        start, end = self._used, self._used + length
        if end > len(self._fetched):
            self._fetched = os.urandom(max(FETCHED, length))
            start, end = 0, length
        self._used = end
        return self._fetched[start:end]

    def number(self) -> int:
        return 1 + int.from_bytes(self.secret(8)) % (2**32 - 1)
