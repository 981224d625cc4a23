"""The host agent: capacity, code cache, life cycle of sandboxes, logs, recovery."""
