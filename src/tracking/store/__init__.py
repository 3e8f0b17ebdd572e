"""The MLflow store: where it is, what runs it has."""
