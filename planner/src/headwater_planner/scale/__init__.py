"""How many SFU nodes each region should have, by load, schedules, expected meetings and forecast.

`plan_scale` (module `plan`) is the one entry: signals and state in, desired numbers with a sentence each and
the next state out. Which nodes then go, and how, is decided elsewhere; nothing here names a node to delete.
"""
