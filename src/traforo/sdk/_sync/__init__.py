"""The client without asyncio. Written by `tools/async_to_sync.py` from `_async`, all but `edges`."""
