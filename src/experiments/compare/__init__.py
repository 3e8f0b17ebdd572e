"""Results against each other: what changed between them, and whether it is more than noise."""
