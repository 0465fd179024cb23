"""What the gateway reads from the API server: Pods, SFUClusters, Meetings. It writes nothing.

None of it is on the join path: with the API server away, the last known state goes on working.
"""
