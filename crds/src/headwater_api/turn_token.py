"""What TURN nodes' admin ports ask for. Pure."""

import hmac


def turn_token(node_token: str) -> str:
    """Commands. Made from the nodes' token, which it does not tell: it may go over the wire in the clear.

    Whoever reads it may command TURN nodes, and no SFU node.
    """
    return hmac.new(node_token.encode(), b"turn-admin", "sha256").hexdigest()


def watch_token(node_token: str) -> str:
    """Following a node's account, for gateways, which command nobody."""
    return hmac.new(node_token.encode(), b"turn-watch", "sha256").hexdigest()
