"""What a run says of itself: tags, params, machine, code, use of the machine."""
