"""What a source is, and those that any kind of file can come by: class folders, a table, Parquet,
WebDataset shards, and code of your own."""
