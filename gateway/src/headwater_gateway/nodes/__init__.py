"""The SFU nodes as the gateway sees them: who is there, how loaded, and the way to command them."""
