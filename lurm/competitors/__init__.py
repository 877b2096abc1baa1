"""Rivals of LURM's user vectors, one file each.

Each is a function of what LURM itself is trained on (behaviors of the training months, the catalog
as known at their end) and of the ids of the users wanted; it returns one row per user, in the order
of the ids, (U, d) float32. The heads on top are the same for all.
"""
