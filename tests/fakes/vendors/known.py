"""All vendors' registries whose tags are listed in bulk."""

from __future__ import annotations

from typing import Final

from tests.fakes.vendors.acr import Acr
from tests.fakes.vendors.artifactory import Artifactory
from tests.fakes.vendors.dockerhub import DockerHub
from tests.fakes.vendors.ecr import Ecr
from tests.fakes.vendors.ghcr import Ghcr
from tests.fakes.vendors.gitlab import GitLab
from tests.fakes.vendors.google import Google
from tests.fakes.vendors.harbor import Harbor
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
