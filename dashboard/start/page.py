"""The script that the server runs at each visit.

It has a folder of its own: Streamlit takes a folder `pages` beside its script for scripts, too, and
would run one where a link names a page before the menu was ever drawn.
"""

from dashboard.app import main

main()
