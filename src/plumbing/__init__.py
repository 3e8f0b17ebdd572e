"""What runs stages and tools. Nothing here can change an output, so no stage lists these files as deps."""
