"""Pictures on their way to the net: sources -> pack -> packed -> batches -> augment."""
