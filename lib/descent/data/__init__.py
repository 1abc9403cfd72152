"""What a training set is, and how one is drawn."""
