"""Drivers that make, freeze, thaw and kill sandboxes: container (stoker-jail), fake, and the guarded decorator."""
