"""Hostile and ordinary misuse: every attempt ends as the documents say, or it is a failure.

A kind is a module of this package with

- `FULL`, `SHORT`: how many attempts the command and the tests make;
- `attempts(count, seed, folder)`: makes `count` attempts in the empty `folder` and yields a line
  for each, "" for the right outcome and else what was tried and what came of it.
"""

KINDS = (
    "study_files",  # mutated study files
    "specs",  # random specs, as JSON and as Python
    "artefacts",  # mutated checkpoints, trial.json and files of an export
    "command_lines",  # random words and numbers for every command
    "corpora",  # sources that are broken, odd or empty, in every format
    "signals",  # signals at named and random moments of every long command
    "kills",  # the processes of Ray and PostgreSQL killed or stopped under a study
    "strangers",  # processes that try to attach to a study's Ray without its secret
)
