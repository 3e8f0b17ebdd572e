"""The model of a run as MLflow serves it."""
