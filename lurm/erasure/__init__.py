"""Erasure: a published platform forgets users, and does not let them back in.

Nothing is computed anew. Every published file that holds a user is written again without his rows, so that
all others keep what they had, byte for byte; models stay as they are until the next retraining.
"""
