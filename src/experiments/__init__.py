"""Results of many runs: found, compared, queued, searched, verified."""
