"""How a packed data set is written, and which split a picture falls into."""
