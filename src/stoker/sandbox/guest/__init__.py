"""What every micro-VM driver shares: the guest's contract, its images, and the host's ends of its streams."""
