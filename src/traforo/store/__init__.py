"""What the control plane must remember across restarts: a contract, and the databases that keep it.

It stores and returns records and decides nothing: which worker is live and which token is spent is told by `control`
and `api`. Workers never come here; they keep a journal of their own.
"""
