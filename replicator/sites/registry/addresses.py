"""Which addresses a registry may lead us to: judged by the address that is connected to, not by how it is spelled.

A registry names hosts: in redirects, upload Locations and token realms. Without a guard it could have us ask services
of our own network, or a cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from functools import lru_cache
from typing import Final, Literal

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Reach = Literal["public", "private", "loopback", "never"]
"""Where an address leads: `never` is link-local or a cloud's metadata service."""

_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
"""AWS and Google by IPv6, Alibaba, Azure, Oracle. All others are link-local (169.254.0.0/16)."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


class AddressRefused(OSError):
    """A name leads only to addresses that are refused. The text says why and what allows it."""


def literal(host: str) -> Address | None:
    """The address that a host is written as, in any notation that the resolver takes; None for a name."""
    text = host.strip("[]").partition("%")[0].rstrip(".")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    try:
        # The resolver takes 127.1, 0x7f000001 and 2130706433 for addresses too.
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except (OSError, ValueError):
        return None


def reach_of(address: Address) -> Reach:
    """Where an address leads; IPv4 inside IPv6 (mapped, NAT64, 6to4, Teredo) is judged as what it stands for."""
    address = _inner(address)
    if address.is_link_local or address in _METADATA:
        return "never"
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    return "public" if address.is_global and not address.is_multicast else "private"


@lru_cache(maxsize=256)
def reach_of_host(host: str) -> Reach | None:
    """As `reach_of`, of a host that is written as an address or as localhost; None for other names."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return "loopback"
    address = literal(host)
    return None if address is None else reach_of(address)


def _inner(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    for embedded in (address.ipv4_mapped, address.sixtofour, address.teredo and address.teredo[1]):
        if embedded:
            return embedded
    in_last_bits = (
        address in _NAT64 or address in _NAT64_LOCAL or (address in _COMPATIBLE and int(address) > 1)
    )
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if in_last_bits else address


class AddressGuard:
    """What one site's registry may lead us to.

    Public addresses always. Private ones where the registry itself was found at a private one, loopback where it is
    at loopback (then private ones too); both where the site's `private_addresses` allows them.
    """

    def __init__(self, registry: URL, *, private: bool = False) -> None:
        self._private = private
        self._at: Reach = reach_of_host(registry.raw_host or "") or "public"

    def learn(self, reach: Reach) -> None:
        """Notes where the registry itself is; the nearest counts."""
        if reach == "loopback" or (reach == "private" and self._at == "public"):
            self._at = reach

    def refusal(self, reach: Reach) -> str | None:
        """Why nothing there is asked at the registry's word; None where it is fine."""
        if reach == "never":
            return "it is a link-local or metadata address"
        if reach == "public" or self._private or self._at in {"loopback", reach}:
            return None
        return f"it is a {reach} address and the registry is not (private_addresses = true allows it)"


class GuardedResolver(AbstractResolver):
    """Resolves names, and leaves out what the guard refuses; what is left is what gets connected to.

    Args:
        guard: of the site.
        own: whether these are the registry's own names, which the config wants: then the guard learns.
        exempt: hosts of proxies, which the config wants too.
        resolver: what resolves; by default the system.
    """

    def __init__(
        self,
        guard: AddressGuard,
        *,
        own: bool,
        exempt: Collection[str] = (),
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._guard = guard
        self._own = own
        self._exempt = exempt
        self._resolver = resolver or DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As aiohttp's; raises `AddressRefused` where nothing is left."""
        found = await self._resolver.resolve(host, port, family)
        if host in self._exempt:
            return found
        left: list[ResolveResult] = []
        why = ""
        for result in found:
            address = literal(result["host"])
            reach = "public" if address is None else reach_of(address)
            if self._own and reach != "never":
                self._guard.learn(reach)
                left.append(result)
            elif (refusal := self._guard.refusal(reach)) is None:
                left.append(result)
            else:
                why = refusal
        if found and not left:
            raise AddressRefused(f"{host} is refused: {why}")
        return left

    async def close(self) -> None:
        """Gives everything back."""
        await self._resolver.close()
