"""Exploration of interleavings: `turns.py` for any code over a store, the rest for the commit protocol.

`python -m tests.exploring FIRST LAST [RULE]` plays the runs of these seeds, with a rule of the protocol taken out when
one is named, and prints those that fail.
"""
