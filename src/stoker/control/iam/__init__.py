"""IAM and STS: roles, users, their policies and keys, and sessions of roles."""
