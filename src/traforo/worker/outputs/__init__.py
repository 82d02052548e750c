"""What commands print, kept: logs of single execs on disk, and the log of a whole sandbox made of them."""
