"""The lives of sandboxes: admitted, started, adopted, leased, ended. The supervisor is who others ask."""
