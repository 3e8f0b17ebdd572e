"""What runs stages and tools. Nothing here can change an output: no file of it is a dep."""
