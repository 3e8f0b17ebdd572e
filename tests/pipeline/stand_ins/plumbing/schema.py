from types import SimpleNamespace

SCHEMA = {
    "prepare.fit": SimpleNamespace(choices=("crop", "pad", "squash")),
    "prepare.interpolation": SimpleNamespace(choices=("bilinear", "bicubic", "lanczos", "nearest")),
}
