"""What TURN nodes' admin ports ask for. Pure."""

import hmac


def turn_token(node_token: str) -> str:
    """Made from the nodes' token, which it does not tell: it goes over the wire in the clear.

    Whoever reads it may command TURN nodes, and no SFU node.
    """
    return hmac.new(node_token.encode(), b"turn-admin", "sha256").hexdigest()
