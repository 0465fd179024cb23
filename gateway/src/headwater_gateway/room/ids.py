"""Ids and secrets of the operating system's randomness."""

import secrets
import string
from typing import Final

ALPHABET: Final = string.ascii_letters + string.digits
SID_LENGTH: Final = 12  # 71 bits


class SystemIds:
    """The IdSource of a running gateway."""

    def sid(self, prefix: str) -> str:
        """`prefix` and 12 letters and digits."""
        return prefix + "".join(secrets.choice(ALPHABET) for _ in range(SID_LENGTH))

    def secret(self, length: int) -> bytes:
        return secrets.token_bytes(length)

    def number(self) -> int:
        return 1 + secrets.randbelow(2**32 - 1)
