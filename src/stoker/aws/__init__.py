"""Clients of other AWS services, at the endpoints that botocore's own settings name."""
