"""Images: what a sandbox's root file system is made from, as directories on the host that a runtime can mount.

`stores.ImageStore` is the door: a reference in, a `contract.Rootfs` out. Nothing here mounts, starts or knows a
sandbox, and nothing fetches from a network. Archives are hostile input: whoever wrote one may want to write elsewhere
on this host.
"""
