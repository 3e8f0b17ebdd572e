"""From pictures as people have them to the packed data set: what `src/prepare.py` alone runs, and
of it what `src/predict.py` needs to treat a new picture alike.

sources -> read (decode, fit; in workers) -> src/packing; ledger and report; quality.
"""
