"""An agent whose rule demands signatures."""

from __future__ import annotations

import asyncio
from pathlib import Path

from replicator.demo.images import image, load
from tests.acceptance.agent import PATIENCE_SECONDS, TURN_SECONDS, running_agent, write_agent
from tests.acceptance.program import Program, rule
from tests.fakes.registry import FakeRegistry
from tests.fakes.signing import Signer, bundle, bundle_referrer

UNTRUSTED = 'replicator_untrusted_tags{destination="fra",rule="platform"}'


async def test_a_signature_that_comes_late_is_picked_up_long_before_the_next_scan(tmp_path: Path) -> None:
    key, app = Signer.ecdsa(), image("app")
    (tmp_path / "key.pub").write_bytes(key.pem)
    trust = f'interval = "1h"\n[[rule.trust]]\nname = "release"\nkeys = ["{tmp_path}/key.pub"]\n'
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        load(hub.store, "platform/app", "v1", app)
        program = Program(tmp_path)
        write_agent(program, {"hub": hub.url, "fra": fra.url}, rule(more=trust))
        async with running_agent(program) as agent:
            await agent.metric(UNTRUSTED, lambda count: count == 1)
            assert "platform/app" not in fra.store.repositories
            load(hub.store, "platform/app", None, bundle_referrer(app, bundle(key, app.digest)))
            for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
                held = fra.store.repositories.get("platform/app")
                if held is not None and "v1" in held.tags:
                    break
                await asyncio.sleep(TURN_SECONDS)
            assert fra.store.repositories["platform/app"].tags == {"v1": app.digest}
            assert fra.store.referrers("platform/app", app.digest)
            await agent.metric(UNTRUSTED, lambda count: count == 0)
