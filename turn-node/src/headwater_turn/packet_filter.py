"""Sets the packet filter with nft, as one transaction."""

import asyncio
import logging
from typing import Final

log = logging.getLogger(__name__)
NFT: Final = "nft"
DEADLINE_S: Final = 10.0


class FilterFailed(RuntimeError):
    """nft is missing, not allowed or refuses the rules; the text is its own."""


async def apply_filter(script: str) -> None:
    """Replaces the table. Raises FilterFailed."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            process = await asyncio.create_subprocess_exec(
                NFT, "-f", "-",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await process.communicate(script.encode())
    except (OSError, TimeoutError) as error:
        raise FilterFailed(f"nft could not be run: {error or type(error).__name__}") from error
    if process.returncode != 0:
        raise FilterFailed(
            f"nft refused the rules (CAP_NET_ADMIN given?): {out.decode(errors='replace')[:500]}"
        )
