"""Which gateway has a room: hashing over the gateways, their liveness, and an optional directory in Redis."""
