"""IAM's policy language: documents, wildcards, conditions, and the order of evaluation. Pure."""
