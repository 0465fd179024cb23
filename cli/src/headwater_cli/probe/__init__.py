"""`headwater probe`: does a client get through, from here? It publishes by WHIP and watches itself by WHEP.

`client` measures, `judge` decides (pure), `command` prints.
"""
