"""How a net is trained: model, optimizer and schedule, the loop, checkpoint, device."""
