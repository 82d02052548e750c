"""What an operator can choose: one frozen group of settings for each process.

Read once at the edge by `sources.load` and handed down. There is no global getter, nothing here looks at the network,
and no module of the server reads the environment by itself.
"""
