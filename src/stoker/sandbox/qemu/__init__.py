"""Micro-VMs by QEMU's ``microvm`` machine under software emulation, each inside a sandbox of the jail."""
