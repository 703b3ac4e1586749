"""Up to which size need nobody think about memory?"""

SMALL = 1 << 20
"""Image positions times channels times cells of a batch: up to this many a step takes a few gigabytes at most."""
