"""Live rooms: who is in, what is published, who gets what, and over which links.

Decisions are pure functions on `RoomState` that append effects; only `actor` carries them out.
"""
