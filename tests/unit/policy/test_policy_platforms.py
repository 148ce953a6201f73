"""Which platforms of an image are chosen, and what becomes of its indexes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.model.descriptor import Descriptor, Platform
from replicator.model.digest import Digest, digest_of
from replicator.model.manifest import Manifest, parse_manifest
from replicator.model.mediatypes import OCI_INDEX, OCI_MANIFEST
from replicator.model.rewriting import rewritten
from replicator.policy.platforms import (
    REFERENCE_DIGEST,
    REFERENCE_TYPE,
    Platforms,
    chosen,
    parse_platform,
    platform_text,
)
from replicator.scrub import MAX_CHARACTERS

PLATFORM = st.builds(
    Platform,
    os=st.sampled_from(["linux", "windows", "", "unknown"]),
    architecture=st.sampled_from(["amd64", "arm64", "arm"]),
    variant=st.sampled_from([None, "v6", "v7", "v8", "8"]),
    os_version=st.sampled_from([None, "10.0.17763.1", "10.0.20348.1"]),
)
WANTED = st.lists(
    st.sampled_from(
        [
            "linux/amd64",
            "linux/arm64",
            "linux/arm64/v8",
            "linux/arm",
            "linux/arm/v6",
            "windows(10.0.17763)/amd64",
        ]
    ).map(parse_platform),
    min_size=1,
    max_size=3,
).map(tuple)


def _child(number: int, platform: Platform | None, about: Digest | None = None) -> Descriptor:
    annotations = {REFERENCE_TYPE: "attestation-manifest", REFERENCE_DIGEST: about} if about else None
    digest = digest_of(str(number).encode())
    return Descriptor(OCI_MANIFEST, digest, number, platform=platform, annotations=annotations)


@st.composite
def _children(draw: st.DrawFn) -> list[Descriptor]:
    images = [
        _child(number, draw(st.none() | PLATFORM))
        for number in range(draw(st.integers(min_value=0, max_value=6)))
    ]
    about = draw(st.lists(st.sampled_from(images), max_size=3)) if images else []
    unknown = Platform("unknown", "unknown")
    attestations = [_child(100 + at, unknown, each.digest) for at, each in enumerate(about)]
    return draw(st.permutations([*images, *attestations]))


def _index(children: Sequence[Descriptor]) -> Manifest:
    entries = [_entry(child) for child in children]
    return parse_manifest(json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), OCI_INDEX)


def _entry(child: Descriptor) -> dict[str, object]:
    entry: dict[str, object] = {
        "mediaType": child.media_type,
        "digest": child.digest,
        "size": child.size,
        "com.example.unknown": 1,
    }
    if child.annotations:
        entry["annotations"] = child.annotations
    if child.platform:
        of = child.platform
        told = {
            "os": of.os,
            "architecture": of.architecture,
            "variant": of.variant,
            "os.version": of.os_version,
        }
        entry["platform"] = {name: value for name, value in told.items() if value is not None}
    return entry


@given(_children(), WANTED)
def test_an_attestation_goes_with_the_image_it_describes(
    children: list[Descriptor], wanted: tuple[Platform, ...]
) -> None:
    kept = chosen(children, wanted)
    for child in children:
        about = (child.annotations or {}).get(REFERENCE_DIGEST)
        if about is not None:
            assert (child.digest in kept) == (about in kept)


@given(_children(), WANTED)
def test_children_without_a_platform_are_kept_and_others_are_of_a_wanted_os_and_architecture(
    children: list[Descriptor], wanted: tuple[Platform, ...]
) -> None:
    kept = chosen(children, wanted)
    pairs = {(each.os, each.architecture) for each in wanted}
    for child in children:
        if child.annotations:
            continue
        if child.platform is None or child.platform.os in {"", "unknown"}:
            assert child.digest in kept
        elif child.digest in kept:
            assert (child.platform.os, child.platform.architecture) in pairs


@given(_children(), WANTED)
def test_a_choice_of_what_was_chosen_changes_nothing(
    children: list[Descriptor], wanted: tuple[Platform, ...]
) -> None:
    kept = chosen(children, wanted)
    assert chosen([child for child in children if child.digest in kept], wanted) == kept


@given(_children(), WANTED, WANTED)
def test_more_platforms_never_lose_a_child(
    children: list[Descriptor], wanted: tuple[Platform, ...], more: tuple[Platform, ...]
) -> None:
    assert chosen(children, wanted) <= chosen(children, (*wanted, *more))


@given(_children(), WANTED)
def test_a_sparse_index_keeps_its_bytes_and_a_rewritten_one_names_what_is_kept(
    children: list[Descriptor], wanted: tuple[Platform, ...]
) -> None:
    source = _index(children)
    cut = Platforms(wanted).cut(source)
    kept = chosen(children, wanted)
    assert (cut.body, cut.digest) == (source.body, source.digest)
    assert {child.digest for child in cut.children} == kept
    assert {child.digest for child in (*cut.children, *cut.left_out)} == {child.digest for child in children}
    new = rewritten(cut, {})
    assert (source.digest in new) == bool(cut.left_out)
    if cut.left_out:
        made = new[source.digest]
        document = json.loads(made.body)
        assert document["manifests"] == [_entry(child) for child in children if child.digest in kept]
        assert made.digest == digest_of(made.body)
        assert not Platforms(wanted).cut(made).left_out
        assert rewritten(cut, {})[source.digest].body == made.body


@pytest.mark.parametrize(
    ("wanted", "has", "kept"),
    [
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], ["linux/arm/v7"]),
        ("linux/arm", ["linux/arm/v5", "linux/arm/v6"], ["linux/arm/v5", "linux/arm/v6"]),
        ("linux/arm64/v8", ["linux/arm64"], ["linux/arm64"]),
        ("linux/arm64", ["linux/arm64/v8", "linux/arm64/v9"], ["linux/arm64/v8"]),
        ("linux/amd64", ["linux/amd64", "linux/amd64/v3"], ["linux/amd64"]),
        ("linux/amd64/v3", ["linux/amd64"], []),
        (
            "windows/amd64",
            ["windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64"],
            ["windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64"],
        ),
        (
            "windows(10.0.17763)/amd64",
            ["windows(10.0.17763.1)/amd64", "windows(10.0.177631.1)/amd64"],
            ["windows(10.0.17763.1)/amd64"],
        ),
    ],
)
def test_variants_and_versions(wanted: str, has: list[str], kept: list[str]) -> None:
    children = [_child(number, parse_platform(text)) for number, text in enumerate(has)]
    found = chosen(children, [parse_platform(wanted)])
    names = [platform_text(child.platform) for child in children if child.platform and child.digest in found]
    assert names == kept


def test_one_image_for_two_platforms_is_found_by_either() -> None:
    """Docker manifest annotate lists one digest twice."""
    twice = [_child(1, parse_platform("linux/amd64")), _child(1, parse_platform("linux/amd64/v2"))]
    cut = Platforms((parse_platform("linux/amd64/v2"),)).cut(_index(twice))
    assert [child.digest for child in cut.children] == [twice[0].digest]


def test_a_nested_index_is_rewritten_from_below_and_left_out_when_nothing_of_it_is_left() -> None:
    amd64, arm64 = (parse_platform(f"linux/{each}") for each in ("amd64", "arm64"))
    both, other = _index([_child(1, amd64), _child(2, arm64)]), _index([_child(3, arm64)])
    tops = [Descriptor(OCI_INDEX, each.digest, len(each.body)) for each in (both, other)]
    platforms = Platforms((amd64,))
    cut = {each.digest: platforms.cut(each) for each in (both, other, _index(tops))}
    root = _index(tops).digest
    new = rewritten(cut[root], cut)
    assert [child.digest for child in new[root].children] == [new[both.digest].digest]
    assert [child.size for child in new[root].children] == [len(new[both.digest].body)]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("linux", "OS/ARCHITECTURE"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/armhf", "linux/arm/v7"),
        ("macos/arm64", "darwin/arm64"),
        ("linux(5.4)/amd64", "write linux/amd64"),
        ("linux/amd64/v1/x", "OS/ARCHITECTURE"),
        ("Linux/amd64", "OS/ARCHITECTURE"),
    ],
)
def test_a_platform_that_no_index_has_is_an_error_with_the_right_one(text: str, right: str) -> None:
    with pytest.raises(ValueError, match=right.replace("(", r"\(")):
        parse_platform(text)


@given(WANTED)
def test_a_platform_is_written_as_it_is_read(wanted: tuple[Platform, ...]) -> None:
    assert tuple(parse_platform(platform_text(each)) for each in wanted) == wanted


def test_what_an_index_names_becomes_one_short_line_of_a_reason() -> None:
    evil = [Platform(os=f"\x1b[2J\n{'x' * 300}{number}", architecture="\u202e") for number in range(50)]
    index = _index([_child(number, platform) for number, platform in enumerate(evil)])
    reason = Platforms((parse_platform("linux/amd64"),)).lacking([index])
    assert reason.startswith("the image has no linux/amd64; it has ")
    assert reason.isprintable()
    assert len(reason) <= MAX_CHARACTERS
