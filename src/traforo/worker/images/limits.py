"""How much of this host one image may use while it is prepared: each number stops a hostile or a broken archive."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings of one image. The defaults let through every image people really use."""

    document_bytes: int = 4 * 1024 * 1024
    """Most bytes of one JSON document (index, manifest, config): registries refuse larger ones as well."""
    layers: int = 512
    """Most layers: container engines stop at 127."""
    members: int = 100_000
    """Most members of an archive that holds layers and documents."""
    entries: int = 1_000_000
    """Most files, directories and links of all layers together, directories that are only implied included."""
    name_bytes: int = 128 * 1024 * 1024
    """Most bytes of the names of those entries, since the tree is held in memory while it is made."""
    unpacked_bytes: int = 16 * 1024**3
    """Most bytes of all layers after decompression."""
    ratio: int = 250
    """Most bytes out for each byte of a compressed layer; real layers stay below 20."""
    ratio_free_bytes: int = 256 * 1024 * 1024
    """Bytes out before `ratio` counts: a small file of zeros packs better than any limit allows and harms nobody."""
    free_bytes: int = 512 * 1024 * 1024
    """Room that stays free on the host's disk; other sandboxes live there too."""
