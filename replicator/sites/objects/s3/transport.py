"""The errors of aiobotocore's HTTP transport that aiobotocore itself does not translate.

aiobotocore sends its requests with aiohttp and turns most of aiohttp's errors into botocore's. A response body that
breaks off while it is read is the exception: its error arrives as aiohttp raised it.
"""

from __future__ import annotations

from typing import Final

import aiohttp

BrokenTransport: Final = aiohttp.ClientError
"""Any error of the transport."""
TruncatedBody: Final = aiohttp.ClientPayloadError
"""The response body ended early, or its framing is invalid. A `BrokenTransport`."""
