"""The words of the project as frozen records: ids, states, specs, resources, errors, clocks.

Everything else speaks in these types, so nothing here does I/O, knows asyncio, or imports another package of traforo.
"""
