"""Random search: the space, and the leaderboard."""
