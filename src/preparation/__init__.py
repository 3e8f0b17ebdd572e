"""From samples as people have them to the packed data set, which `src/prepare.py` runs: sources ->
read in workers by the kind's packer -> split, ledger and report -> verdict."""
