"""Configuration to objects: chooses roles, adapters and transport, and wires the rooms. No logic here."""
