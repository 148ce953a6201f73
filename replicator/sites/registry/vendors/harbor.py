"""Harbor.

https://goharbor.io/docs/latest/ and https://github.com/goharbor/harbor (api/v2.0/swagger.yaml)
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Sign, Vendor

HARBOR: Final = Vendor(
    kind="harbor",
    title="Harbor",
    signs=(Sign("WWW-Authenticate", 'service="harbor-registry"'),),
    names=NameRules(min_parts=2, shape="PROJECT/NAME"),
    tag_deletion="vendor",
    immutable=(Refusal(frozenset({412}), code="PRECONDITION"),),
    limits=(
        "The project must exist; repositories in it are created by a push.",
        "A project that is a proxy cache takes no pushes.",
    ),
)
