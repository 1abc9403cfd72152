"""Instruments: usable on any model, independent of the book."""
