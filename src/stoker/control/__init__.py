"""The control plane, one module per resource. Knows the metadata and code ports; never a sandbox."""
