"""What everything is built on: files, randomness, figures, kinds, imports."""
