"""Buckets and directories as sites of a config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

KEYS = 'access_key = { env = "KEY" }\nsecret_key = { env = "SECRET" }\nregion = "us-east-1"\n'
ENVIRON = {"KEY": "AKIAEXAMPLE", "SECRET": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


def directory(name: str, path: Path, layout: str = "oci") -> str:
    """A directory's table."""
    return f'[site.{name}]\nurl = "file://{path}"\nlayout = "{layout}"\n'


def bucket(name: str, endpoint: str, url: str, layout: str = "distribution") -> str:
    """A bucket's table; the keys are in `ENVIRON`."""
    return f'[site.{name}]\nurl = "{url}"\nlayout = "{layout}"\nendpoint = "{endpoint}"\n{KEYS}'


def everything(source: str, *destinations: str, name: str = "all") -> str:
    """A rule of all repositories."""
    listed = ", ".join(f'"{each}"' for each in destinations)
    return (
        f'[[rule]]\nname = "{name}"\nsource = "{source}"\ndestinations = [{listed}]\nrepositories = ["**"]\n'
    )


def s3_driver(endpoint: str, name: str) -> Mapping[str, object]:
    """The table `s3` of docker-registry's storage, for this bucket."""
    return {
        "region": "us-east-1",
        "regionendpoint": endpoint,
        "bucket": name,
        "accesskey": ENVIRON["KEY"],
        "secretkey": ENVIRON["SECRET"],
        "secure": False,
    }
