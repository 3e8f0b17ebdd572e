"""What a person should look at before training on a set of images."""
