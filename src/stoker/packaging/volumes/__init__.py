"""Images that load lazily: a process that serves one file per image over /dev/fuse, out of encrypted chunks.

The jail makes the device and mounts the image on top; who starts a sandbox with it is not known here.
"""
