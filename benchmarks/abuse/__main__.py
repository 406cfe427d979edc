"""Try what users, accidents and strangers do to the service, and count wrong outcomes.

python -m benchmarks.abuse --json abuse.json            # every kind; about an hour
python -m benchmarks.abuse specs corpora --seed 1
"""

from __future__ import annotations

import sys

from benchmarks.abuse import KINDS
from benchmarks.abuse.attempts import rows
from benchmarks.report import parser, publish

if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all without any")
    command.add_argument("--seed", type=int, default=0)
    options = command.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        command.error(f"unknown kind {sorted(unknown)[0]!r}; known: {', '.join(KINDS)}")
    sys.exit(publish(rows(options.kinds or KINDS, options.seed), options.json))
