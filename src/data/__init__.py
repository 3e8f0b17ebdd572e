"""The packed data set on its way to the net: packed -> readers -> batches -> augment."""
