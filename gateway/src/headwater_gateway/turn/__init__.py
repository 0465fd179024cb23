"""TURN: which servers clients are told, and what happens when one of them goes."""
