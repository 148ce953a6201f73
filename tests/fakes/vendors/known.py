"""All vendors' registries."""

from __future__ import annotations

from typing import Final

from tests.fakes.vendors.acr import Acr
from tests.fakes.vendors.alibaba import Alibaba
from tests.fakes.vendors.artifactory import Artifactory
from tests.fakes.vendors.dockerhub import DockerHub
from tests.fakes.vendors.ecr import Ecr, EcrPublic
from tests.fakes.vendors.ghcr import Ghcr
from tests.fakes.vendors.gitea import Gitea
from tests.fakes.vendors.gitlab import GitLab
from tests.fakes.vendors.google import Google
from tests.fakes.vendors.harbor import Harbor
from tests.fakes.vendors.nexus import Nexus
from tests.fakes.vendors.quay import Quay
from tests.fakes.vendors.vendor import VendorRegistry
from tests.fakes.vendors.zot import Zot

BULK: Final[tuple[type[VendorRegistry], ...]] = (
    DockerHub,
    Ghcr,
    Ecr,
    Acr,
    Google,
    Quay,
    Harbor,
    GitLab,
    Zot,
    Artifactory,
)
"""Those whose tags are listed in bulk."""

ALL: Final[tuple[type[VendorRegistry], ...]] = (*BULK, EcrPublic, Nexus, Gitea, Alibaba)
