"""The pipeline: five stages, the tools beside them, and the packages they share."""
