"""The health check of a service: exits with 0 if a URL answers well within three seconds, else with 1."""

import sys
from urllib.request import urlopen

try:
    with urlopen(sys.argv[1], timeout=3):
        pass
except OSError as error:  # refused, too late, or an answer of 400 and more
    sys.exit(f"{sys.argv[1]}: {error}")
