"""Parity cases: each compares one piece of the model with recorded reference numbers."""
