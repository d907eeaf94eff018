"""`python -m preftune`, the same as the command `preftune`."""

from preftune.cli.main import main

main()
