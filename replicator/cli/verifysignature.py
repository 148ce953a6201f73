"""`replicator verify-signature`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from replicator.cli.names import complete_rule
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.references import opened_site
from replicator.cli.rules import named_rules
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.config.load import load
from replicator.engine.content.signatures import Candidate, SignatureReader, candidates_in
from replicator.engine.content.source import SourceContent
from replicator.engine.content.trust import judge
from replicator.engine.referrers import ReferrersAPIs
from replicator.errors import ConfigError
from replicator.model.digest import Digest
from replicator.ports import Repository, Site
from replicator.report import format_count
from replicator.trust.keys import MAX_KEY_BYTES, read_public_key
from replicator.trust.policy import PublicKey, TrustPolicy
from replicator.trust.verify import Finding, Verdict


@click.command("verify-signature")
@click.argument("reference")
@click.option(
    "--key", "keys", multiple=True, metavar="FILE", help="PEM file with a public key; may be repeated."
)
@click.option(
    "--attestation",
    "attestations",
    multiple=True,
    metavar="PREDICATE",
    help="With --key: demand an attestation of this predicate type instead of a signature; may be repeated.",
)
@click.option(
    "--rule", metavar="NAME", shell_complete=complete_rule, help="Verify as this rule of the config does."
)
@click.option(
    "--insecure", is_flag=True, help="For a registry given by host: allow plain HTTP and unverified TLS."
)
@everywhere
@click.pass_obj
def command(
    invocation: Invocation,
    reference: str,
    *,
    keys: Sequence[str],
    attestations: Sequence[str],
    rule: str | None,
    insecure: bool,
) -> int:
    """Explain which signatures of an image count, and why others do not.

    REFERENCE is SITE/REPOSITORY[:TAG][@DIGEST] with a site of the config, or an image as `copy` takes it:
    HOST/REPOSITORY, s3://, file://, oci: or oci-archive:. Exit code 3 if the image is not trusted, 1 if that could not
    be found out.
    """
    if bool(keys) == bool(rule) or (attestations and not keys):
        raise click.UsageError("give either --key FILE, with --attestation if you like, or --rule NAME")
    policies = _of_rule(invocation, rule) if rule else _of_keys(keys, attestations)
    return run_async(_verify(invocation, reference, policies, insecure=insecure))


def _of_rule(invocation: Invocation, name: str) -> tuple[TrustPolicy, ...]:
    rules = named_rules(load(invocation.config, os.environ).rules, [name])
    if not rules[0].trust:
        raise ConfigError([f"--rule {name}: demands no signatures; add [[rule.trust]] to it, or use --key"])
    return rules[0].trust  # the rules that one with image lists comes to demand the same


def _of_keys(files: Sequence[str], attestations: Sequence[str]) -> tuple[TrustPolicy, ...]:
    keys: list[PublicKey] = []
    problems: list[str] = []
    for name in files:
        try:
            with Path(name).open("rb") as file:
                keys.append(read_public_key(file.read(MAX_KEY_BYTES + 1), name))
        except OSError as error:
            problems.append(f"--key {name}: cannot be read: {error.strerror}")
        except ValueError as error:
            problems.append(f"--key {name}: {error}")
    if problems:
        raise ConfigError(problems)
    return (TrustPolicy("--key", tuple(keys), attestations=tuple(attestations)),)


async def _verify(
    invocation: Invocation, text: str, policies: Sequence[TrustPolicy], *, insecure: bool
) -> int:
    watch = Watch.start(invocation)
    async with opened_site(invocation, text, watch, insecure=insecure) as (site, repository, reference):
        root = (await repository.resolve(reference)).digest
        reader = _reader(site, repository, watch)
        candidates = candidates_in(await reader.listing(root, None))
        verdict, findings = await judge(reader, root, policies, candidates, explains=True)
    if invocation.json:
        print_json(_as_json(repository, reference, root, candidates, findings, verdict))
    else:
        _print(repository, reference, root, policies, candidates, findings, verdict)
    return 0 if verdict.trusted else 3


def _reader(site: Site, repository: Repository, watch: Watch) -> SignatureReader:
    content = SourceContent(
        {repository.site: site},
        repository.site,
        spool=None,
        share=lambda: False,
        events=watch.events,
        warn=lambda text: click.echo(f"warning: {text}", err=True),
        apis=ReferrersAPIs(watch.clock),
    )
    return SignatureReader(content, repository.name, (), lambda _: None)


def _print(
    repository: Repository,
    reference: str,
    root: Digest,
    policies: Sequence[TrustPolicy],
    candidates: Sequence[Candidate],
    findings: Sequence[Finding],
    verdict: Verdict,
) -> None:
    click.echo(f"image     {repository.site}: {repository.name}, {reference}")
    click.echo(f"digest    {root}")
    click.echo(f"found     {format_count(len(candidates), 'manifest')} that may be a signature")
    for candidate in candidates:
        click.echo(f"          {candidate.where}" + (f" ({candidate.digest})" if candidate.tag else ""))
    for policy in policies:
        click.echo(f"policy    {policy.name}: {_demand(policy)}")
        for finding in findings:
            if finding.policy == policy.name:
                click.echo(f"  {'counts' if finding.signer else 'void  '}  {finding.where}: {finding.text}")
    click.echo("trusted" if verdict.trusted else f"not trusted: {verdict.reason}")


def _demand(policy: TrustPolicy) -> str:
    what = "attestations of " + ", ".join(policy.attestations) if policy.attestations else "a signature"
    signers = ", ".join([*(f"{key.name} ({key.kind})" for key in policy.keys), *map(str, policy.keyless)])
    more = [f"{name}={value}" for name, value in policy.annotations.items()]
    more += ["for this repository"] if policy.same_repository else []
    how_many = f"by {policy.minimum} of {signers}" if policy.minimum > 1 else f"by {signers}"
    return ", ".join([f"{what} {how_many}", *more])


def _as_json(
    repository: Repository,
    reference: str,
    root: Digest,
    candidates: Sequence[Candidate],
    findings: Sequence[Finding],
    verdict: Verdict,
) -> dict[str, object]:
    return {
        "version": 1,
        "site": repository.site,
        "repository": repository.name,
        "reference": reference,
        "digest": root,
        "trusted": verdict.trusted,
        "reason": verdict.reason or None,
        "candidates": [{"digest": each.digest, "tag": each.tag} for each in candidates],
        "findings": [
            {
                "policy": each.policy,
                "where": each.where,
                "counts": each.signer is not None,
                "signer": each.signer,
                "predicate": each.demand or None,
                "text": each.text,
            }
            for each in findings
        ],
    }
