"""Chapters executed: what moved, one worker each, locks, stamps; nothing outlives a command."""
