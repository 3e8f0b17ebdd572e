"""How `model` in params.yaml names the nets that are not timm's."""

OWN = "own"
TORCHVISION = "torchvision:"  # what stands before a name of torchvision
