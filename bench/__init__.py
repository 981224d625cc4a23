"""Measurements, each beside a named yardstick in the same run."""
