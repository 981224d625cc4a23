"""Drivers that make, freeze, thaw and kill sandboxes: container (stoker-jail), fake; and the guard around one."""
