"""Adapters of the storage ports: metadata and queue on SQL, objects, memory fakes. No logic."""
