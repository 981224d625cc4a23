"""``python -m stoker.app``: what the supervisor starts."""

import gc
import os
import sys

import uvloop

from stoker.app.configuration import ConfigurationError, load_settings
from stoker.app.log_output import configure_logging
from stoker.app.service import run
from stoker.core.errors import StokerError

EX_CONFIG = 78
EX_FAILED = 1


def main() -> int:
    """0 after a clean stop, 78 for a configuration that cannot work, 1 for everything else."""
    try:
        settings = load_settings(file=None, environment=os.environ, flags={})
        configure_logging(settings.log_level)
        gc.freeze()
        uvloop.run(run(settings))
    except ConfigurationError as problem:
        sys.stderr.write(f"stoker: {problem}\n")
        return EX_CONFIG
    except (StokerError, OSError) as problem:
        sys.stderr.write(f"stoker: {type(problem).__name__}: {problem}\n")
        return EX_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
