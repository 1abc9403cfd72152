"""A reader's own rule against others: tuned on draws of its own, reported on others, with the step held equal."""
