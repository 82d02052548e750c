"""Programs that run inside sandboxes, one a language: each keeps an interpreter and runs code in it when asked.

They are read as text and never imported by the worker. What they say is parsed as hostile, in
`traforo.worker.interpreters.marks`.
"""
