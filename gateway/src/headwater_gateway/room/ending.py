"""Ending a room because somebody asked for it, who is told that it has been done."""

from livekit.protocol import models

from headwater_gateway.room.actor import RoomActor


async def end_for_all(actor: RoomActor, why: str) -> None:
    """Send everybody home. JoinRefusal, TimeoutError: another gateway has the room, or will have it.

    A node is asked first: one that obeys another gateway would let the room go on there. Where none answers
    at all the room ends.
    """
    try:
        await actor.ask(lambda *_: None, proves=True)
    except TimeoutError:
        if actor.is_handed_over:
            raise
    actor.end(models.DisconnectReason.ROOM_DELETED, why)
