"""Training code by somebody who knew only the contract of `src.checks.run`, never the checks.

`bases*` and `more_bases` are healthy set-ups, `faults_*` break one thing in one of them, and
`healthy_*` are further right ones, each in its author's own style.
`python -m tests.zoo.unseen.score` runs the library on all of them. Whoever works on the checks
should leave these files as they are: once somebody has tuned a check on them, their score says
nothing about code that nobody has seen.
"""
