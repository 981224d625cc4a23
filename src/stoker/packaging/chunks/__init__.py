"""Images in encrypted, deduplicated chunks: sealing, manifests, garbage roots and their collector.

Knows objects by key and nothing of layers, file systems or mounts.
"""
