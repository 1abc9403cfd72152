"""Exact laws: numbers and arrays in, numbers and arrays out; nothing here trains."""
