"""Exit 0 when $PRESAGE_HEALTH_URL answers 200: the health check of the images of Python services.

Inside its container only, so a certificate for another name is no matter.
"""

import os
import ssl
import sys
import urllib.request

url = os.environ.get("PRESAGE_HEALTH_URL", "")
if not url:
    sys.exit("expected PRESAGE_HEALTH_URL")
context = ssl._create_unverified_context() if url.startswith("https") else None
try:
    with urllib.request.urlopen(url, timeout=4, context=context) as answer:
        print(f"{url}: {answer.status}")
except OSError as error:
    sys.exit(f"{url}: {error}")
