"""What a source is, and the two that any kind of file can come by: class folders, and a table."""
