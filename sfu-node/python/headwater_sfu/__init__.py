"""Headwater's SFU node: the native media engine (`_native`) and the thin agent around it."""
