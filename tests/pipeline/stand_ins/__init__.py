"""What stands in for src/plumbing and src/tracking in test_reproduction.py: it shows nothing,
compares nothing, guards nothing and logs nothing."""
