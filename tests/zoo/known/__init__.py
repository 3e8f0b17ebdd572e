"""A zoo of training set-ups for the battery of src/checks: healthy ones, and ones with a fault."""
