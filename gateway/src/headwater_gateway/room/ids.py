"""Ids and secrets of the operating system's randomness."""

import secrets
import string
from typing import Final

ALPHABET: Final = string.ascii_letters + string.digits
SID_LENGTH: Final = 12  # 71 bits
DRAWN_BITS: Final = 128  # so many more that no letter is likelier than another by more than 2^-57


class SystemIds:
    """The IdSource of a running gateway."""

    def sid(self, prefix: str) -> str:
        """`prefix` and 12 letters and digits."""
        rest, letters = secrets.randbits(DRAWN_BITS), []
        for _ in range(SID_LENGTH):
            rest, index = divmod(rest, len(ALPHABET))
            letters.append(ALPHABET[index])
        return prefix + "".join(letters)

    def secret(self, length: int) -> bytes:
        return secrets.token_bytes(length)

    def number(self) -> int:
        return 1 + secrets.randbelow(2**32 - 1)
