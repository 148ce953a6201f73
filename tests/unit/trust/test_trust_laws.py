"""Laws of trust, for any signatures in any order and any policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.demo.images import image
from replicator.model.digest import Digest, digest_of
from replicator.trust.policy import TrustPolicy
from replicator.trust.statement import SIGNED
from replicator.trust.verify import Signature, Subject, Trial
from tests.fakes.signing import PROVENANCE, Signer, bundle, legacy, payload

IMAGE = image("judged").manifest
ANOTHER = digest_of(b"another image")
SIGNERS = [Signer.ecdsa(f"{number}.pub") for number in range(3)]
PREDICATES = (SIGNED, PROVENANCE, "https://example.com/do-not-run")


@dataclass(frozen=True)
class Made:
    """A signature as it was made: by whom, about what, and whether it was spoilt afterwards."""

    signer: int
    predicate: str
    subject: Digest
    env: str
    older: bool
    spoilt: bool

    def counts(self, policy: TrustPolicy, predicate: str) -> bool:
        """What the documentation says."""
        return (
            not self.spoilt
            and self.subject == IMAGE.digest
            and self.predicate == predicate
            and SIGNERS[self.signer].key.id in {key.id for key in policy.keys}
            and ("env" not in policy.annotations or policy.annotations["env"] == self.env)
        )


@cache
def signature(made: Made) -> Signature:
    """It, as a bundle, or in cosign's older form."""
    signer = SIGNERS[made.signer]
    if made.older and made.predicate == SIGNED:
        older = legacy(signer, payload(made.subject, env=made.env))
        return Signature(
            "tag",
            older.form,
            older.body.replace(b"cosign", b"c0sign") if made.spoilt else older.body,
            older.annotations,
        )
    body = bundle(signer, made.subject, made.predicate, annotations={"env": made.env})
    if made.spoilt:
        body = body.replace(b'"payload": "ey', b'"payload": "eY')
    return Signature("referrer", "bundle", body)


made = st.builds(
    Made,
    st.integers(0, 2),
    st.sampled_from(PREDICATES),
    st.sampled_from([IMAGE.digest, IMAGE.digest, ANOTHER]),
    st.sampled_from(["prod", "test"]),
    st.booleans(),
    st.sampled_from([False, False, True]),
)
policies = st.builds(
    TrustPolicy,
    st.just("policy"),
    keys=st.lists(st.sampled_from(SIGNERS), min_size=1, max_size=4).map(
        lambda signers: tuple(signer.key for signer in signers)
    ),
    minimum=st.integers(1, 3),
    annotations=st.sampled_from([{}, {}, {"env": "prod"}]),
    attestations=st.sampled_from([(), (), (PROVENANCE,), (PROVENANCE, "https://example.com/do-not-run")]),
)


def trusted(signatures: Sequence[Made], demanded: Sequence[TrustPolicy]) -> bool:
    trial = Trial(demanded, Subject(IMAGE.digest, "app", IMAGE.body))
    for one in signatures:
        trial.examine(signature(one))
    return trial.verdict().trusted


def expected(signatures: Sequence[Made], demanded: Sequence[TrustPolicy]) -> bool:
    return all(
        len({one.signer for one in signatures if one.counts(policy, predicate)}) >= policy.minimum
        for policy in demanded
        for predicate in policy.attestations or (SIGNED,)
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(made, max_size=8), st.lists(policies, min_size=1, max_size=2))
def test_an_image_is_trusted_by_enough_distinct_signers_of_each_demand_and_never_otherwise(
    signatures: list[Made], demanded: list[TrustPolicy]
) -> None:
    assert trusted(signatures, demanded) == expected(signatures, demanded)


@settings(max_examples=50, deadline=None)
@given(st.lists(made, max_size=6), made, st.lists(policies, min_size=1, max_size=2), st.randoms())
def test_neither_order_nor_repetition_nor_one_signature_more_takes_trust_away(
    signatures: list[Made], more: Made, demanded: list[TrustPolicy], random: Random
) -> None:
    before = trusted(signatures, demanded)
    shuffled = [*signatures, *signatures]
    random.shuffle(shuffled)
    assert trusted(shuffled, demanded) == before
    assert trusted([more, *signatures], demanded) >= before
