"""The client of OCI registries: blocking, on a bounded number of threads, never on the event loop."""
