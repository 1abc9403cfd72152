"""`python -m descent` is the command `descent`."""

import sys

from descent.book.commands.cli import main

sys.exit(main())
