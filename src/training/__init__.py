"""How a net is trained: the learner (net, loss, optimizer, schedule), the step, the loop."""
