"""Checkpoints in the released layout: reading, checking, merging and writing them."""
