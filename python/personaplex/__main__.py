"""`python -m personaplex` is the `personaplex` command."""

import sys

from personaplex.cli import main

sys.exit(main())
