"""python -m minicnn"""

import sys

from minicnn.cli.main import main

sys.exit(main())
