"""Objectives, each beside its own exact theory."""
