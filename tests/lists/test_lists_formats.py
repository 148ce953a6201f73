"""What each format of image list yields, and with which line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.lists.document import MAX_DEPTH
from replicator.lists.findings import Findings
from replicator.lists.formats import read_text
from replicator.lists.reading import Reading, parse_image_path


def lines(found: Findings) -> list[tuple[str, int]]:
    return [(mention.text, mention.place.line) for mention in found.mentions]


def read(text: str, file: str = "list", reading: Reading | None = None) -> Findings:
    return read_text(text, file, reading or Reading())


def test_rancher_s_list_with_comments_crlf_and_trailing_spaces() -> None:
    found = read("# v2.9\r\nrancher/shell:v0.1 \r\n\r\n\tdocker.io/rancher/pause:3.6\t# k3s\r\nnginx\r\n")
    assert lines(found) == [("rancher/shell:v0.1", 2), ("docker.io/rancher/pause:3.6", 4), ("nginx", 5)]
    assert not found.problems


def test_two_words_on_a_line_are_a_problem_that_names_the_line() -> None:
    found = read("a:1\nfoo bar\nb:2\n")
    assert lines(found) == [("a:1", 1), ("b:2", 3)]
    assert [str(problem) for problem in found.problems] == [
        "list:2: one image a line is expected, not 2 words: 'foo bar'"
    ]


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("a:1\n{{ .Values.image }}\n", "list"),
        ("a:1\n{{.Values.image}}:1\n", "list"),
        ("kind: Pod\napiVersion: v1\nspec: {containers: [{image: 'a:1'}, {image: '{{ .x }}'}]}\n", "list"),
        ("kind: ZarfPackageConfig\ncomponents: [{images: ['a:1', 'b:###ZARF_PKG_TMPL_V###']}]\n", "list"),
    ],
)
def test_a_template_that_was_not_rendered_is_named_and_not_taken(text: str, file: str) -> None:
    found = read(text, file)
    assert [text for text, _ in lines(found)] == ["a:1"]
    assert ["render it first" in str(problem) for problem in found.problems] == [True]


def test_an_unrendered_chart_that_is_not_yaml_says_what_to_do() -> None:
    found = read("kind: Pod\napiVersion: v1\n{{- if .Values.x }}\nspec: {}\n{{- end }}\n")
    assert "helm template" in str(found.problems[0])
    assert str(found.problems[0]).startswith("list:4")


def test_pods_of_every_kind() -> None:
    text = """
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  spec:
    template:
      spec:
        initContainers:
        - image: init:1
        containers:
        - image: registry.k8s.io/app:1.10
        volumes:
        - image: {reference: model:1}
---
# Source: chart/cron.yaml
apiVersion: batch/v1
kind: CronJob
spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: cron:1}]}}}}}
---
apiVersion: v1
kind: Pod
spec:
  ephemeralContainers:
  - image: debug:1
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
spec: {template: {spec: {containers: [{image: rollout:1}]}}}
---
apiVersion: v1
kind: ConfigMap
data: {image: not-an-image}
"""
    assert sorted(lines(read(text))) == [
        ("cron:1", 20),
        ("debug:1", 26),
        ("init:1", 11),
        ("model:1", 15),
        ("registry.k8s.io/app:1.10", 13),
        ("rollout:1", 30),
    ]


@pytest.mark.parametrize(
    ("path", "images"),
    [
        ("Prometheus:{.spec.image}", ["prom:1"]),
        ("{.spec.image}", ["prom:1"]),
        ("$.spec.more[*].image", ["a:1", "b:1"]),
        ("Other:{.spec.image}", []),
    ],
)
def test_custom_resources_by_path(path: str, images: list[str]) -> None:
    text = "apiVersion: x/v1\nkind: Prometheus\nspec: {image: 'prom:1', more: [{image: 'a:1'}, {image: 'b:1'}]}\n"
    found = read(text, reading=Reading(paths=(parse_image_path(path),)))
    assert [text for text, _ in lines(found)] == images


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="JSONPath"):
        parse_image_path("{.spec[}")


def test_dockerfile_takes_what_a_build_pulls() -> None:
    text = """# syntax=docker/dockerfile:1
ARG VERSION=3.20
FROM --platform=$BUILDPLATFORM alpine:${VERSION} AS build
ARG VERSION=later
RUN apk add \\
    curl <<EOF
FROM not-this
EOF
FROM build AS test
FROM scratch
COPY --from=build /a /b
COPY --from=0 /a /b
COPY --from=busybox:1 /bin/sh /bin/sh
RUN --mount=type=bind,from=golang:1.22,target=/go ls
"""
    found = read(text)
    assert lines(found) == [("alpine:3.20", 3), ("busybox:1", 13), ("golang:1.22", 14)]
    assert "docker/dockerfile:1" in str(found.notes[0])


def test_dockerfile_without_a_value_for_its_argument() -> None:
    found = read("FROM registry/${TEAM}/base\n", "Containerfile")
    assert str(found.problems[0]) == (
        "Containerfile:1: registry/${TEAM}/base: variable TEAM has no value and no default; give ARG a default"
    )
    given = read("ARG TEAM\nFROM registry/${TEAM}/base\n", reading=Reading(variables={"TEAM": "x"}))
    assert lines(given) == [("registry/x/base", 2)]


def test_compose() -> None:
    text = """
x-common: &common
  image: shared:1
services:
  web:
    image: ${REGISTRY:-docker.io}/web:${TAG-1}
  worker:
    extends: web
  merged:
    <<: *common
  built:
    build: .
  debug:
    image: debug:1
    profiles: [debug]
  broken:
    image: x:${MISSING:?set it in .env}
"""
    found = read(text, reading=Reading(variables={"TAG": "2"}))
    assert lines(found) == [
        ("docker.io/web:2", 6),
        ("docker.io/web:2", 6),
        ("shared:1", 3),
        ("debug:1", 14),
    ]
    assert [str(note) for note in found.notes] == ["list:11: service built skipped: it is only built"]
    assert "variable MISSING has no value: set it in .env" in str(found.problems[0])
    only_prod = read(text, reading=Reading(profiles=frozenset({"prod"})))
    assert ("debug:1", 14) not in lines(only_prod)


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: content.hauler.cattle.io/v1\nkind: Images\nspec:\n  images:\n  - name: a/b:1\n",
        (
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n"
            "  additionalImages:\n  - name: a/b:1\n"
        ),
        "kind: ZarfPackageConfig\nmetadata: {name: x}\ncomponents:\n- name: c\n  images: [a/b:1]\n",
        '["a/b:1"]',
        "- a/b:1\n",
    ],
)
def test_lists_of_other_tools(text: str) -> None:
    found = read(text)
    assert [text for text, _ in lines(found)] == ["a/b:1"]
    assert not found.problems


def test_what_an_oc_mirror_file_selects_otherwise_is_noted() -> None:
    text = "kind: ImageSetConfiguration\nmirror: {operators: [x], additionalImages: [{name: a}]}\n"
    assert "mirror.operators" in str(read(text).notes[0])


def test_aliases_that_grow_without_bound_are_refused() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
    )
    assert "aliases expanded" in str(read(bomb).problems[0])


@pytest.mark.parametrize("text", ["[" * 5_000, "{a: " * 5_000, "- " * (MAX_DEPTH + 2)])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "not valid YAML" in str(read(text).problems[0])


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert "no complete anchor" in str(read("a: &a [*a]\n").problems[0])


def test_yaml_without_images_says_what_was_expected() -> None:
    assert "expected a list of images" in str(read("name: x\n").problems[0])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_no_text_breaks_the_reading_and_every_place_is_a_line_of_it(text: str) -> None:
    found = read(text)
    count = len(text.splitlines()) + 2
    assert all(0 <= place.line <= count for _, place in found.mentions)
    assert all(mention.text.strip() for mention in found.mentions)


_NAME = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}:[a-z0-9]{1,5}", fullmatch=True)


@given(st.lists(st.tuples(_NAME, st.sampled_from(["", " ", "\t", "  # why"])), max_size=20))
def test_each_line_of_a_plain_list_is_one_image(rows: list[tuple[str, str]]) -> None:
    text = "".join(f"{name}{after}\r\n" for name, after in rows)
    assert lines(read(text)) == [(name, number) for number, (name, _) in enumerate(rows, 1)]
