"""`python -m tvm_cdmpp` is the command `tvm-cdmpp`."""

import sys

from tvm_cdmpp.cli.main import main

sys.exit(main())
