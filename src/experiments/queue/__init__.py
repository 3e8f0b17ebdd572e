"""Many experiments at once: what tells them apart, how DVC's queue runs them, how they rank."""
