"""Where pictures come from: a file per kind of source, and the table of them in catalog.py."""
