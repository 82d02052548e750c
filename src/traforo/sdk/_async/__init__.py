"""The client for asyncio, and the source of the one without: `tools/async_to_sync.py` writes `_sync` from this package.

`edges` alone is written twice by hand: it holds whatever is truly different between the two worlds.
"""
