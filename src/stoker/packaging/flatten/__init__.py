"""Container images to one deterministic file system image in sealed chunks, in a confined process.

``tar`` reads a layer, ``tree`` merges layers, ``regions`` and ``image`` decide where everything lies,
``writing`` cuts it into chunks. ``process`` is the helper process with all of that in it, ``flattener``
starts it.
"""
