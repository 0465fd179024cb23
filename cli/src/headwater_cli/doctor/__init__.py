"""`headwater doctor`: what is wrong with an installation, and what to do about it.

`observe` reads, `diagnose` decides (pure), `command` prints.
"""
