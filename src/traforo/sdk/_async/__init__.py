"""The client for asyncio, and the source of the one without: `tools/async_to_sync.py` writes `_sync` from this package.

`edges` and `sockets` are written twice by hand: they hold whatever is truly different between the two worlds.
"""
