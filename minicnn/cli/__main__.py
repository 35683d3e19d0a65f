"""python -m minicnn.cli"""

import sys

from minicnn.cli.main import main

sys.exit(main())
