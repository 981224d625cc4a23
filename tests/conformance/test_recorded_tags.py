"""Tags, every answer compared with what AWS answered (recorded)."""

from typing import Any

from tests.conformance.recorded import answer, arn, created, invalid, not_found, violates
from tests.running import RunningStoker

DONE = {"HTTP": 204}
TAGGABLE = (
    r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:"
    r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)"
    r"|code-signing-config:csc-[a-z0-9]{17}"
    r"|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|capacity-provider:[a-zA-Z0-9-_]+)"
)
TOO_MANY = invalid("Number of tags exceeds resource tag limit.")


def tags_of(stoker: RunningStoker, name: str) -> dict[str, str]:
    shown = answer(stoker.client("lambda").list_tags, Resource=arn(name))
    assert set(shown) == {"Tags", "HTTP"}
    return shown["Tags"]


def test_tags_come_and_go(stoker: RunningStoker) -> None:
    name, service = "recorded-tags", stoker.client("lambda")
    created(stoker, name)

    def tag(**tags: str) -> dict[str, Any]:
        return answer(service.tag_resource, Resource=arn(name), Tags=tags)

    def untag(*keys: str) -> dict[str, Any]:
        return answer(service.untag_resource, Resource=arn(name), TagKeys=list(keys))

    assert tags_of(stoker, name) == {}
    assert tag(A="tag-a") == DONE
    assert tags_of(stoker, name) == {"A": "tag-a"}
    assert tag(B="tag-b", C="tag-c") == DONE
    assert tags_of(stoker, name) == {"A": "tag-a", "B": "tag-b", "C": "tag-c"}
    assert tag(C="tag-c-newsuffix", D="tag-d") == DONE
    assert tags_of(stoker, name) == {"A": "tag-a", "B": "tag-b", "C": "tag-c-newsuffix", "D": "tag-d"}
    assert untag("A") == DONE
    assert untag("B", "C") == DONE
    assert tags_of(stoker, name) == {"D": "tag-d"}
    assert untag("X") == DONE
    assert tags_of(stoker, name) == {"D": "tag-d"}
    assert untag("D", "X") == DONE
    assert tags_of(stoker, name) == {}


def test_a_function_that_does_not_exist(stoker: RunningStoker) -> None:
    service, resource = stoker.client("lambda"), arn("recorded-untold")
    expected = not_found("recorded-untold")
    assert answer(service.list_tags, Resource=resource) == expected
    assert answer(service.tag_resource, Resource=resource, Tags={"A": "B"}) == expected
    assert answer(service.untag_resource, Resource=resource, TagKeys=["A"]) == expected


def test_what_cannot_be_tagged(stoker: RunningStoker) -> None:
    name, service = "recorded-tags-refused", stoker.client("lambda")
    created(stoker, name)
    assert answer(service.tag_resource, Resource=arn(name), Tags={}) == invalid(
        "An error occurred and the request cannot be processed."
    )
    assert answer(service.untag_resource, Resource=arn(name), TagKeys=[]) == violates(
        "null", "tagKeys", "Member must not be null"
    )
    assert answer(service.tag_resource, Resource="arn:aws:something", Tags={"A": "B"}) == violates(
        "'arn:aws:something'", "resource", f"Member must satisfy regular expression pattern: {TAGGABLE}"
    )
    qualified = "Tags on function aliases and versions are not supported. Please specify a function ARN."
    assert answer(service.tag_resource, Resource=f"{arn(name)}:1", Tags={"A": "B"}) == invalid(qualified)
    assert tags_of(stoker, name) == {}


def test_fifty_tags_are_the_limit(stoker: RunningStoker) -> None:
    name, service = "recorded-many-tags", stoker.client("lambda")
    created(stoker, name)
    fifty = {f"{number}_key": f"{number}_value" for number in range(50)}
    over = {**fifty, "50_key": "50_value"}
    assert answer(service.tag_resource, Resource=arn(name), Tags=over) == TOO_MANY
    assert tags_of(stoker, name) == {}
    assert answer(service.tag_resource, Resource=arn(name), Tags=fifty) == DONE
    assert tags_of(stoker, name) == fifty
    assert service.get_function(FunctionName=name)["Tags"] == fifty
    assert answer(service.tag_resource, Resource=arn(name), Tags={"another": "x"}) == TOO_MANY
    assert answer(service.tag_resource, Resource=arn(name), Tags={"1_key": "changed"}) == DONE
    assert tags_of(stoker, name) == {**fifty, "1_key": "changed"}
