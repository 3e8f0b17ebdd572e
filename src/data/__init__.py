"""The packed data set on its way to the net: writer -> packed -> readers -> batches."""
