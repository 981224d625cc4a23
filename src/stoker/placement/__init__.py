"""Which worker gets the next sandbox. Pure: a snapshot in, a decision out; no clock, randomness or I/O."""
