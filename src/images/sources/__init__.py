"""Where images come from: a file per kind of source. src/images/catalog.py is the table of them."""
