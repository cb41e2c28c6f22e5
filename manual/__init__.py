"""Makes `share/` from the command line itself: man pages, and what shells complete.

`python -m manual FOLDER` writes it. None of this is in the package.
"""
