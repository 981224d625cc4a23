"""Stoker: AWS Lambda for your own machines."""
