"""Whatever comes, goes and dies: the nodes are told a consistent story, and clients get what they should."""

import itertools
from dataclasses import dataclass, field

from headwater_api.ids import NodeId, ParticipantIdentity, RegionName, RoomId, TrackSid
from headwater_api.nodev1 import node_pb2
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import effects, links, roster, tracks
from headwater_gateway.room.model import JoinRequest, RoomConfig
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.subscriptions import is_subscribed
from headwater_gateway.sdp.types import OfferedSection
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from livekit.protocol import models, rtc
from support.counting_ids import CountingIds

OPUS = node_pb2.CodecMap(payload_type=111, codec=node_pb2.CODEC_OPUS, clock_rate=48000, channels=2)
NODES = {NodeId(f"{r}-{n}"): RegionName(r) for r in ("eu", "us", "ap") for n in (1, 2, 3)}


@dataclass
class ModelNode:
    """What a node knows after its commands; it refuses those that make no sense."""

    links: dict[str, node_pb2.OpenRelay] = field(default_factory=dict)
    remote: dict[str, str] = field(default_factory=dict)

    def carry_out(self, command: node_pb2.Command) -> None:
        match command.WhichOneof("command"):
            case "open_relay":
                assert command.open_relay.link_id not in self.links
                self.links[command.open_relay.link_id] = command.open_relay
            case "close_relay":
                gone = command.close_relay.link_id
                del self.links[gone]
                self.remote = {t: link for t, link in self.remote.items() if link != gone}
            case "add_remote_track":
                assert command.add_remote_track.link_id in self.links, "a track over a link that is not open"
                self.remote[command.add_remote_track.track_id] = command.add_remote_track.link_id
            case "remove_remote_track":
                del self.remote[command.remove_remote_track.track_id]


class RoomMachine(RuleBasedStateMachine):
    """Joins, publishes, leaves, kills nodes, loses links, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.room = RoomState(RoomId("demo"), "RM_1", RoomConfig(), 0, 0.0, CountingIds())
        self.nodes: dict[str, ModelNode] = {}
        self.now = 0.0
        self.cids = itertools.count()

    def perform(self) -> None:
        for effect in self.room.take_effects():
            if isinstance(effect, effects.ToNode):
                node = self.nodes.setdefault(effect.node_id, ModelNode())
                for command in effect.commands:
                    node.carry_out(command)
            elif isinstance(effect, effects.ReleaseNode):
                self.nodes.pop(effect.node_id, None)

    @rule(who=st.integers(0, 7), node=st.sampled_from(sorted(NODES)))
    def join(self, who: int, node: NodeId) -> None:
        self.now += 1
        facts = NodeFacts(node, NODES[node], "1", (f"127.0.0.1:{hash(node) % 1000}",), "sha-256 AB", 1000)
        grants = models.ParticipantPermission(can_subscribe=True, can_publish=True)
        request = JoinRequest(ParticipantIdentity(f"p{who}"), permission=grants, auto_subscribe=who % 3 > 0)
        roster.join(self.room, request, facts, now=self.now, unix_ms=0)
        self.perform()

    @precondition(lambda self: self.room.participants)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(list(self.room.participants.values())))
        if who.moving_at is not None or len(who.tracks) > 3:
            return
        cid = f"c{next(self.cids)}"
        tracks.add_track(self.room, who, rtc.AddTrackRequest(cid=cid, type=models.TrackType.AUDIO), self.now)
        section = OfferedSection(cid, node_pb2.KIND_AUDIO, cid, "", codecs=(OPUS,))
        tracks.set_sections(self.room, who, [*who.sections, section], self.now)
        self.perform()

    @precondition(lambda self: self.room.tracks)
    @rule(data=st.data())
    def unpublish(self, data: st.DataObject) -> None:
        track = data.draw(st.sampled_from(list(self.room.tracks.values())))
        who = self.room.participants[track.publisher]
        if who.moving_at is None:
            tracks.unpublish(self.room, who, track.sid, self.now)
            self.perform()

    @precondition(lambda self: self.room.participants)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(list(self.room.participants)))
        roster.remove(self.room, who, models.DisconnectReason.CLIENT_INITIATED, self.now)
        self.perform()

    @precondition(lambda self: self.room.nodes)
    @rule(data=st.data())
    def kill_node(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.room.nodes)))
        self.nodes.pop(node, None)
        roster.lose_node(self.room, node, "killed", self.now)
        self.perform()
        assert node not in self.nodes, "a dead node was commanded"

    @precondition(lambda self: self.room.participants)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        roster.send_away(
            self.room, data.draw(st.sampled_from(list(self.room.participants))), "full", self.now
        )
        self.perform()

    @precondition(lambda self: self.room.cascade.open)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(sorted(self.room.cascade.open)))
        links.reopen_link(self.room, self.room.cascade.open[known].link_id)
        self.perform()

    @rule(seconds=st.sampled_from([1.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        roster.expire(self.room, self.now)
        self.perform()

    @invariant()
    def nodes_in_use_are_the_rooms(self) -> None:
        used = {p.node_id for p in self.room.participants.values() if p.moving_at is None}
        assert set(self.room.nodes) == used
        assert set(self.nodes) <= used

    @invariant()
    def links_are_pairs_with_swapped_keys(self) -> None:
        for name, node in self.nodes.items():
            for link_id, mine in node.links.items():
                theirs = self.nodes[mine.peer_node_id].links[link_id]
                assert theirs.peer_node_id == name
                assert (theirs.tx_key, theirs.rx_key) == (mine.rx_key, mine.tx_key)
                assert theirs.link_token == mine.link_token

    @invariant()
    def each_live_track_reaches_each_other_node(self) -> None:
        live = {
            t.sid: self.room.node_of_track(t)
            for t in self.room.tracks.values()
            if t.is_live and self.room.node_of_track(t) is not None
        }
        for name in self.room.nodes:
            remote = self.nodes[name].remote if name in self.nodes else {}
            assert set(remote) == {sid for sid, home in live.items() if home != name}
            for sid in remote:
                assert self.hops(name, sid) == live[TrackSid(sid)]

    def hops(self, node: str, track: str) -> str:
        """Where the track's way from this node ends; it must not be long."""
        for _ in range(4):
            link = self.nodes[node].remote.get(track)
            if link is None:
                return node
            node = self.nodes[node].links[link].peer_node_id
        raise AssertionError("a loop")

    @invariant()
    def everyone_wants_what_they_should(self) -> None:
        for who in self.room.participants.values():
            if who.moving_at is None:
                should = {t.sid for t in self.room.tracks.values() if is_subscribed(self.room, who, t)}
                assert set(who.wanted) == should

    @invariant()
    def tables_agree(self) -> None:
        assert {p.identity: p.sid for p in self.room.participants.values()} == self.room.by_identity
        owned = {t for p in self.room.participants.values() for t in p.tracks}
        assert owned == set(self.room.tracks)


TestRoom = RoomMachine.TestCase
TestRoom.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
