"""What only the template has a use for: `make new` turns a clone into a project, and goes."""
