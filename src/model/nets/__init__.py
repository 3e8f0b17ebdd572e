"""Nets of timm and torchvision by name, and files of weights for them."""

# How `model` in params.yaml names the nets that are not timm's.
OWN = "own"
TORCHVISION = "torchvision:"  # what stands before a name of torchvision
