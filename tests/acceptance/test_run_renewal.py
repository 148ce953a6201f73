"""Certificates that are renewed in their place, and a SIGHUP."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from tests.acceptance.agent import Agent, running_agent, write_agent
from tests.acceptance.program import Program, rule

NOBODY = "http://127.0.0.1:9"


def issue(authority: trustme.CA, folder: Path) -> str:
    """A new pair of files; the certificate."""
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return (folder / "cert.pem").read_text()


async def shown(agent: Agent) -> str:
    port = urlsplit(agent.url).port
    assert port is not None
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))


async def test_agent_shows_its_renewed_certificate_and_refuses_one_without_its_key(tmp_path: Path) -> None:
    authority, program = trustme.CA(), Program(tmp_path)
    first = issue(authority, tmp_path)
    tls = '[http]\ntls = { cert = "cert.pem", key = "key.pem" }\n'
    write_agent(program, {"hub": NOBODY, "fra": NOBODY}, rule(more='interval = "1h"'), tls)
    async with running_agent(program) as agent:
        assert await shown(agent) == first
        second = issue(authority, tmp_path)
        agent.signal(signal.SIGHUP)
        await agent.says("config reloaded")
        assert await shown(agent) == second
        authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(tmp_path / "key.pem")
        agent.signal(signal.SIGHUP)
        await agent.says("http.tls")
        assert await shown(agent) == second
