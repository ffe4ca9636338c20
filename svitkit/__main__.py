"""``python -m svitkit`` is ``svitkit``."""

from svitkit.cli.app import main

main()
