"""How Headwater's programs reach the API server and the nodes: whom they trust, and what they leave open."""
