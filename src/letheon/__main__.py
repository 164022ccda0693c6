"""`python -m letheon`: the command line where its script is not on the path."""

from __future__ import annotations

from letheon.cli import main

if __name__ == "__main__":
    main()
