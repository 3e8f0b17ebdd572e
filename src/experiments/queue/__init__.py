"""Many experiments at once: what distinguishes them, and how DVC's queue runs them."""
