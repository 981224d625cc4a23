"""Drivers that make, freeze, thaw and kill sandboxes: container (stoker-jail), fake; a guard around any."""
