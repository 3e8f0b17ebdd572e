"""A project's own parts: the files of src/yours as somebody might write them."""
