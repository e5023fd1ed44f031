"""Makes docs/asyncapi.yaml, the wire contract for programs, of the code and of docs/wire.md.

Names, types, defaults, ranges and error codes come from the code, sentences and examples from the page; only what
neither of them states as data stands here: how a producer uses the channels, and the keys of each job's result.
"""
