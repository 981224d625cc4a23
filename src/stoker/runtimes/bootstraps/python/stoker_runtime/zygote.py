"""A zygote: an interpreter that has loaded the runtime, and forks into sandboxes as the jail asks.

It holds runtime code only; a function's is loaded by its children, each in a sandbox of its own.
"""

# ruff: noqa: PLC0415 - what is imported here is forgotten in the children

import sys

CHANNEL_FD = 61
"""Where the jail's requests come from; native/init/control.h names it too."""


def serve():
    """Fork for ever; returns in each child, which must not show that it was forked."""
    before = set(sys.modules) - {__name__}
    import gc

    import stoker_zygote  # native, and in this folder only where there can be zygotes

    gc.freeze()  # a collection in a child would write to every page that they share
    stoker_zygote.serve(CHANNEL_FD)
    for name in set(sys.modules) - before:
        del sys.modules[name]
    del sys.modules[__package__].zygote
