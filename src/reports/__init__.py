"""What stages leave for people and for the next stage: metrics, tables, figures."""
