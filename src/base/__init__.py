"""What everything is built on: files, randomness, figures, types of keys, kinds, imports."""
