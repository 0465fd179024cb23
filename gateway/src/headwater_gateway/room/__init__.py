"""Live rooms: who is in, what is published, who gets what, and over which links.

Decisions are pure functions on `RoomState` that append effects; `actor` is the only place that carries them out.
"""
