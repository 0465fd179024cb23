"""Ids of one vocabulary. NewTypes, so that two ids cannot be swapped without mypy noticing."""

from typing import NewType

RegionName = NewType("RegionName", str)
ClusterName = NewType("ClusterName", str)
NodeId = NewType("NodeId", str)  # the SFU Pod's name
RoomId = NewType("RoomId", str)  # the room's name; a Meeting's room bears the Meeting's name
GatewayId = NewType("GatewayId", str)  # the gateway Pod's name
ParticipantSid = NewType("ParticipantSid", str)  # PA_…
ParticipantIdentity = NewType("ParticipantIdentity", str)
TrackSid = NewType("TrackSid", str)  # TR_…
RoomSid = NewType("RoomSid", str)  # RM_…
TransportId = NewType("TransportId", str)
LinkId = NewType("LinkId", str)
