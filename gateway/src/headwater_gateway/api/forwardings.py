"""Participants that are shown in another room too: their two rooms' gateways talk about them here.

The gateway of the room that shows one asks several times a second what the participant's own room has of it,
and says what it needs: its end of the link, the layers that are wanted. All is in every question, so either
room may change gateways at any moment.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import structlog
from aiohttp import web
from headwater_api.ids import ParticipantSid, RoomId
from headwater_api.reasons import Reason

from headwater_gateway.api.context import ApiContext
from headwater_gateway.api.errors import ApiError, to_api_error
from headwater_gateway.http.admission import HEADER_CLIENT, is_vouched
from headwater_gateway.owners import MAX_HOPS
from headwater_gateway.room import codec, forwarding, showing
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.crossing import Ask, Sight, Start
from headwater_gateway.room.ports import JoinRefusal, RoomError
from headwater_gateway.signal.types import GatewayPeer, JoinRefused
from headwater_gateway.tasks import report

PATH_LOOK: Final = "/peer/look"
PATH_START: Final = "/peer/forward"
LOOK_S: Final = 1.0  # how often rooms are looked through for participants that nobody follows yet
HOLD_S: Final = 0.3  # so long an answer waits for news
STEP_S: Final = 0.05
RETRY_S: Final = 0.5
ANSWER_S: Final = 3.0  # an answer comes within that, or its gateway is taken for silent
GONE_S: Final = 5.0  # a room that is nowhere may be on its way to another gateway
_PURPOSE: Final = "forward"

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Forwardings:
    """Follows those who are shown in rooms of this gateway; answers for those who are in them."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._tasks: dict[ParticipantSid, asyncio.Task[None]] = {}
        self._run: asyncio.Task[None] | None = None

    # -- beginning -------------------------------------------------------------------------------

    async def start(self, begun: Start) -> None:
        """Show the participant in the destination room, wherever that lives. ApiError, what rooms refuse."""
        peer = await self._context.plane.owner(begun.destination, hops=0, resumes=False)
        if peer is None:
            await self._begin(begun)
            return
        await self._post(peer, PATH_START, begun)

    async def _begin(self, begun: Start) -> None:
        actor = self._context.directory.open(begun.destination)
        come = await actor.ask(lambda state, now: forwarding.begin(state, actor.mover, begun, now))
        self._follow(actor, come.sid)

    # -- following -------------------------------------------------------------------------------

    def run(self) -> None:
        """Begin to look for those whom rooms brought along that were taken over."""
        self._run = asyncio.create_task(self._look_after(), name="forwardings")
        report(self._run, "forwardings.died")

    async def _look_after(self) -> None:
        while True:
            for actor in self._context.directory.rooms():
                for participant in actor.state.participants.values():
                    if participant.forwarded is not None:
                        self._follow(actor, participant.sid)
            await asyncio.sleep(LOOK_S)

    def _follow(self, actor: RoomActor, sid: ParticipantSid) -> None:
        if sid in self._tasks or actor.state.ended:
            return
        task = asyncio.create_task(self._keep(actor, sid), name=f"forwarding {sid}")
        self._tasks[sid] = task
        report(task, "forwarding.failed")
        task.add_done_callback(lambda _: self._tasks.pop(sid, None))

    async def _keep(self, actor: RoomActor, sid: ParticipantSid) -> None:
        seen, nowhere_since = "", 0.0
        last: Ask | None = None
        clock = asyncio.get_running_loop().time
        while (question := forwarding.ask_of(actor.state, sid, seen)) is not None:
            last = question
            try:
                sight = await self._look(question)
            except (ApiError, RoomError, JoinRefused, JoinRefusal, TimeoutError) as error:
                refusal = to_api_error(error)
                nowhere_since = (nowhere_since or clock()) if refusal.code == "not_found" else 0.0
                is_lost = nowhere_since > 0 and clock() - nowhere_since >= GONE_S
                if refusal.reason is Reason.PARTICIPANT_NOT_FOUND or is_lost:
                    log.info("forwarding.over", participant=sid, source=question.source, why=refusal.sentence)
                    await self._tell(actor, lambda state, now: forwarding.end(state, sid, now))
                    return
                seen = ""
                await asyncio.sleep(RETRY_S)
                continue
            nowhere_since = 0.0
            seen = showing.mark_of(sight) if sight.is_linked else ""
            await self._tell(
                actor, lambda state, now, s=sight: forwarding.apply(state, actor.mover, sid, s, now)
            )
            if not sight.is_linked:  # it is on its way to a node, or the far end is about to be opened
                await asyncio.sleep(STEP_S)
        if last is not None and not actor.is_handed_over:
            over = Ask(last.source, last.identity, sid, is_over=True)
            try:
                await self._look(over)
            except (ApiError, RoomError, JoinRefused, JoinRefusal, TimeoutError):
                return  # it forgets by itself

    async def _tell(self, actor: RoomActor, decide: Callable[..., None]) -> None:
        try:
            await actor.ask(decide)
        except (JoinRefusal, TimeoutError):
            await asyncio.sleep(RETRY_S)  # busy, or over: the next question tells

    # -- answering -------------------------------------------------------------------------------

    async def _look(self, ask: Ask) -> Sight:
        """What the participant's own room has of it, wherever that lives."""
        peer = await self._context.plane.owner(ask.source, hops=0, resumes=True)
        if peer is None:
            return await self._answer(ask)
        found: Sight = codec.unpack(Sight, await self._post(peer, PATH_LOOK, ask), 0.0)
        return found

    async def _answer(self, ask: Ask) -> Sight:
        actor = self._context.room(ask.source)
        sight = await actor.ask(lambda state, now: showing.show(state, ask, now))
        for _ in range(round(HOLD_S / STEP_S)):
            if ask.is_over or not sight.is_linked or showing.mark_of(sight) != ask.seen:
                break
            await asyncio.sleep(STEP_S)
            sight = replace(showing.look(self._context.room(ask.source).state, ask.identity), is_linked=True)
        return sight

    async def _post(self, peer: GatewayPeer, path: str, message: Ask | Start) -> dict[str, Any]:
        gateway = str(self._context.directory.controller_id)
        headers = {"Content-Type": "application/json"}
        status, raw, _ = await self._context.call(
            peer,
            "POST",
            path,
            body=json.dumps(codec.pack(message, 0.0)).encode(),
            headers=headers,
            address=gateway,
            token=_PURPOSE,
            deadline_s=ANSWER_S,
        )
        try:
            answer: dict[str, Any] = json.loads(raw)
        except ValueError:
            raise ApiError("unavailable", f"the other gateway answered {status}") from None
        if status != 200:
            reason = Reason(answer["reason"]) if "reason" in answer else Reason.OWNER_UNREACHABLE
            raise ApiError(answer.get("code", "unavailable"), answer.get("message", f"{status}"), reason)
        return answer

    # -- other gateways --------------------------------------------------------------------------

    def add(self, app: web.Application) -> None:
        """The routes by which gateways reach each other here."""

        async def look(request: web.Request) -> web.Response:
            return await self._serve(request, self._on_look)

        async def start(request: web.Request) -> web.Response:
            return await self._serve(request, self._on_start)

        app.router.add_post(PATH_LOOK, look)
        app.router.add_post(PATH_START, start)

    async def _on_look(self, body: dict[str, Any]) -> dict[str, Any]:
        ask = codec.unpack(Ask, body, 0.0)
        await self._take_up(ask.source)
        return codec.pack(await self._answer(ask), 0.0)

    async def _on_start(self, body: dict[str, Any]) -> dict[str, Any]:
        begun = codec.unpack(Start, body, 0.0)
        await self._take_up(begun.destination)
        await self._begin(begun)
        return {}

    async def _take_up(self, room: RoomId) -> None:
        """Who asks takes this gateway for the room's: that of a dead one is taken over first. JoinRefused."""
        await self._context.plane.owner(room, hops=MAX_HOPS, resumes=True)

    async def _serve(
        self, request: web.Request, handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    ) -> web.Response:
        gateway = request.headers.get(HEADER_CLIENT, "")
        if not is_vouched(request, self._context.settings.node_token, gateway, _PURPOSE):
            return web.Response(status=404, text="no such page")
        try:
            return web.json_response(await handle(await request.json()))
        except (ValueError, codec.CodecError) as error:
            refusal = ApiError("malformed", f"not understood: {error}"[:200])
        except Exception as error:
            refusal = to_api_error(error)
        answer = {"code": refusal.code, "reason": refusal.reason, "message": refusal.sentence}
        return web.json_response(answer, status=refusal.status)

    async def aclose(self) -> None:
        """End what runs."""
        tasks = [*self._tasks.values(), *([self._run] if self._run is not None else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
