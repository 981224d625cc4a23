"""A writer of EROFS images in pure Python: uncompressed, deterministic, for our own builders alone.

``nodes`` are the files, ``image.build_image`` makes a whole small image of them, and ``metadata.Metadata``
lays out only the metadata of an image whose data lies anywhere. Nothing here reads or writes a file.
"""
