"""The Python runtime of Stoker: behaves as AWS's runtime interface client, starts in a fraction of its time.

Runs inside the sandbox on Python 3.8 to 3.14 with nothing but the standard library.
"""
