"""Gathers what `protocol/diagnosis` decides on: each function asks one part of a gateway, and its
bad state is a fact, not an error.

Nothing is written anywhere but, for a moment, one empty file on a volume (`disk.py`).
"""
