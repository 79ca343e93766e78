"""The fast path of customs: rows without lists and records in them, read byte by byte, all of a chunk at once.

`lines` and `letters` are plain Python with the types of C beside them (`.pxd`): images hold them compiled, with every
index checked; where they are not compiled they do the same, slowly.
"""
