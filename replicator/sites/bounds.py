"""How much of anything is taken from the other side, by every adapter. What goes over is a named failure, never "empty".

Manifests have bounds of their own (`model.manifest`, `model.strictjson`), since they are bounded wherever they come
from; how long is waited is in `timeouts.Timeouts`.
"""

from __future__ import annotations

from typing import Final

MAX_HEADER_BYTES: Final = 64 * 1024
"""Of one header line. Signed Locations with session tokens exceed aiohttp's 8190; Go takes 1 MiB of headers."""
MAX_HEADERS: Final = 1_000
MAX_ERROR_BYTES: Final = 64 * 1024
"""More of an error's body is not read."""
MAX_TOKEN_BYTES: Final = 64 * 1024
MAX_URL_CHARACTERS: Final = 16 * 1024
MAX_NUMBER_DIGITS: Final = 18
"""Of a size, an offset or a number of seconds in a header; Python refuses to read one of 4,301."""

DEFAULT_MAX_BLOB_BYTES: Final = 100_000_000_000
"""Of one blob, where the site's `max_blob_bytes` does not say otherwise."""

MAX_PAGE_BYTES: Final = 16 * 1024 * 1024
MAX_PAGE_ENTRIES: Final = 1_000_000
"""Of one page, whatever they are. Each takes 50 to 100 bytes once parsed: 16 MiB of `[],` would take half a gigabyte."""
MAX_NAMES: Final = 1_000_000
"""Of one listing: tags of a repository, repositories of a registry, referrers of a manifest."""
MAX_NAME_BYTES: Final = 64 * 1024 * 1024
MAX_PAGES: Final = 100_000
FREE_PAGES: Final = 1_000
LEAST_NAMES_PER_PAGE: Final = 5
"""After `FREE_PAGES` pages a listing has this many names for each, or it is one that never ends."""
EMPTY_PAGES: Final = 20
"""In a row; registries that filter for rights give some."""

MAX_XML_BYTES: Final = 4 * 1024 * 1024
"""Of one answer of a bucket. A page of 1,000 objects has half a megabyte; the longest keys, percent-encoded, make it 3."""
MAX_XML_TAGS: Final = 100_000
"""In one answer, beginnings and ends of elements: 1,000 objects have 20,000. botocore reads them in Python."""

MAX_INDEX_BYTES: Final = 64 * 1024 * 1024
"""Of the `index.json` of a layout, in a directory, bucket or archive."""
MAX_INDEX_ENTRIES: Final = 300_000
"""As many as fit into `MAX_INDEX_BYTES` if each has a tag."""
MAX_INDEX_VALUE_BYTES: Final = 1024 * 1024
"""Of one entry, or of one of the other values beside `manifests`."""
MAX_MARKER_BYTES: Final = 4096
"""Of the file `oci-layout`."""
MAX_LINK_BYTES: Final = 1024
"""Of a link file in distribution's storage, which holds a digest."""

MAX_TAR_ENTRIES: Final = 500_000
MAX_TAR_HEADER_BYTES: Final = 64 * 1024
"""Of a header that only says more of the next one (a long name, a large size)."""
MAX_TAR_NAME_BYTES: Final = 4096

LARGE_JSON_BYTES: Final = 256 * 1024
"""JSON from here on is decoded in a thread: it would hold the event loop for a tenth of a second or more."""
