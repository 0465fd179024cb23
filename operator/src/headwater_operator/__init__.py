"""Headwater's operator: turns SFUClusters into SFU Pods and tells the truth about Meetings.

It is the supply plane: it never sits on the join path, and it never deletes a node that serves.
"""
