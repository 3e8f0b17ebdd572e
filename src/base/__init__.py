"""What everything is built on: files, randomness, pictures by matplotlib, types of keys, imports."""
