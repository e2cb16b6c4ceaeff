"""gunicorn, dramatiq and flask all start here."""

import logging
import sys

from app import create_app, memory
from app.errors import WaybillError

# gunicorn's own word for "this will not work next time either": with another one it would try for ever.
FAILED_TO_BOOT = 3

# Warnings with time and level. dramatiq has set up its own log by now and keeps it.
logging.basicConfig(format="[%(asctime)s] [%(process)d] [%(levelname)s] %(name)s: %(message)s")
memory.tune()
try:
    app = create_app()
except WaybillError as error:
    print(f"Waybill cannot start. {error.message}", file=sys.stderr)
    sys.exit(FAILED_TO_BOOT)
