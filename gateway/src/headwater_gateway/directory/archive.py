"""Where no store beside the nodes is configured: hashing decides, and nodes keep the snapshots."""

from headwater_api.ids import GatewayId, RoomId


class NoArchive:
    """An archive that holds nothing and agrees to everything."""

    async def read(self, room_id: RoomId) -> tuple[int, list[bytes]]:
        """Nothing is kept."""
        return 0, []

    async def claim(self, room_id: RoomId, epoch: int) -> None:
        """Nobody is told."""

    async def aclose(self) -> None:
        """Nothing is open."""

    async def assign(self, room: RoomId, wanted: GatewayId) -> GatewayId:
        """As hashing says."""
        return wanted
