"""Nets of timm and torchvision by name, and files of weights for them."""
