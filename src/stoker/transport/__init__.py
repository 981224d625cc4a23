"""How one room reaches another: in process (local), from another process of the host (rpc, remote)."""
