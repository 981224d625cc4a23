"""Builds what a micro-VM boots from: kernel, initramfs, runtime roots. The same input gives the same bytes.

Blocking: for commands and threads. Nothing here starts a VM.
"""
