"""The packed data set on its way to the net: pack -> packed -> readers -> batches -> augment."""
