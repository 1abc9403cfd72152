"""Train stacks of replicas, measure what momentum and noise do, and judge claims by the measurement."""

__version__ = "1.0.0"
