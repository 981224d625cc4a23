"""Ids, ARNs, frozen records, errors, clock and limits. Imports nothing of Stoker; no I/O."""
