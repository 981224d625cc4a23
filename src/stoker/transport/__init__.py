"""How one room reaches another: in process (local), later over the network."""
