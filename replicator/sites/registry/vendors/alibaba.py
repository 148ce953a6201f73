"""Alibaba Cloud Container Registry.

https://www.alibabacloud.com/help/en/acr/
"""

from __future__ import annotations

import re
from typing import Final

from replicator.notifications import alibaba
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Vendor

ALIBABA: Final = Vendor(
    kind="alibaba",
    title="Alibaba Cloud Container Registry",
    hosts=("cr.aliyuncs.com",),
    host_pattern=re.compile(r"registry(?:-vpc|-internal|-intl)?\.[a-z0-9-]+\.aliyuncs\.com"),
    names=NameRules(min_parts=2, shape="NAMESPACE/NAME"),
    tag_deletion="vendor",
    immutable=(Refusal(text="cannot be overwritten"),),
    read_right="cr:PullRepository",
    write_right="cr:PushRepository",
    notifications=alibaba.FORMAT,
    limits=("The namespace must exist.",),
)
