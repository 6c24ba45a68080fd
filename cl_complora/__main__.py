"""``python -m cl_complora``."""

from .cli import main

main()
