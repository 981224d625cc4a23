"""Layers through boto3, and in real sandboxes: what is at /opt, in which order, on which paths."""

import base64
import hashlib
import urllib.request
from typing import Any

import pytest

from tests.conformance.recorded import MOMENT, answer, invalid, settled
from tests.running import ACCOUNT, PYTHON_RUNTIME, REGION, RunningStoker, node_runtime, zip_of

NODE = node_runtime()
SITE = f"python/lib/{PYTHON_RUNTIME}/site-packages"

needs_node = pytest.mark.skipif(NODE is None, reason="needs Node.js under /usr")


def publish(stoker: RunningStoker, name: str, files: dict[str, str | bytes], **members: Any) -> str:
    shown = stoker.client("lambda").publish_layer_version(
        LayerName=name, Content={"ZipFile": zip_of(files)}, **members
    )
    return shown["LayerVersionArn"]


def logs_of(stoker: RunningStoker, name: str) -> str:
    answered = stoker.client("lambda").invoke(FunctionName=name, LogType="Tail")
    return base64.b64decode(answered["LogResult"]).decode()


# --- the API


def test_a_version_from_publication_to_deletion(stoker: RunningStoker) -> None:
    service, archive = stoker.client("lambda"), zip_of({"python/a.py": "A = 1"})
    layer = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:life"
    published = answer(
        service.publish_layer_version,
        LayerName="life",
        Content={"ZipFile": archive},
        CompatibleRuntimes=[],
        CompatibleArchitectures=["x86_64"],
    )
    location = published["Content"].pop("Location")
    expected = {
        "CompatibleArchitectures": ["x86_64"],
        "CompatibleRuntimes": [],
        "Content": {
            "CodeSha256": base64.b64encode(hashlib.sha256(archive).digest()).decode(),
            "CodeSize": len(archive),
        },
        "CreatedDate": MOMENT,
        "Description": "",
        "LayerArn": layer,
        "LayerVersionArn": f"{layer}:1",
        "Version": 1,
    }
    assert published == {**expected, "HTTP": 201}
    with urllib.request.urlopen(location, timeout=10) as downloaded:
        assert downloaded.read() == archive
    for shown in (
        answer(service.get_layer_version, LayerName="life", VersionNumber=1),
        answer(service.get_layer_version, LayerName=layer, VersionNumber=1),
        answer(service.get_layer_version_by_arn, Arn=f"{layer}:1"),
    ):
        del shown["Content"]["Location"]
        assert shown == {**expected, "HTTP": 200}
    item = {member: expected[member] for member in expected.keys() - {"Content", "LayerArn"}}
    listed = answer(service.list_layer_versions, LayerName="life")
    assert listed == {"LayerVersions": [item], "HTTP": 200}
    [found] = [each for each in service.list_layers()["Layers"] if each["LayerName"] == "life"]
    assert found == {"LayerName": "life", "LayerArn": layer, "LatestMatchingVersion": item}
    for _ in range(2):
        deleted = answer(service.delete_layer_version, LayerName="life", VersionNumber=1)
        assert deleted == {"HTTP": 204}
    gone = "The resource you requested does not exist."
    shown = answer(service.get_layer_version, LayerName="life", VersionNumber=1)
    assert (shown["HTTP"], shown["Error"]["Message"]) == (404, gone)
    assert publish(stoker, "life", {"b": ""}) == f"{layer}:2"


def test_the_functions_member_in_awss_words(stoker: RunningStoker) -> None:
    """Each of these answers was recorded."""
    service = stoker.client("lambda")
    first, second = publish(stoker, "words", {"a": ""}), publish(stoker, "words", {"b": ""})
    layer = first.removesuffix(":1")
    stoker.create_python("layer-words", "def lambda_handler(event, context): pass\n")

    def update(*layers: str) -> dict[str, Any]:
        return answer(service.update_function_configuration, FunctionName="layer-words", Layers=list(layers))

    two = (
        "Two different versions of the same layer are not allowed to be referenced in the same function. "
        "{} and {} are versions of the same layer."
    )
    assert update(first, second) == invalid(two.format(first, second))
    assert update(first, second, first) == invalid(two.format(first, second))
    assert update(first, first) == invalid(two.format(first, first))
    absent = f"{layer}:9"
    assert update(absent) == invalid(f"Layer version {absent} does not exist.")
    malformed = update(layer)
    assert malformed["Error"] == {
        "Code": "ValidationException",
        "Message": f"1 validation error detected: Value '[{layer}]' at 'layers' failed to satisfy constraint: "
        "Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must "
        "have length greater than or equal to 1, Member must satisfy regular expression pattern: "
        r"(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:"
        r"[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+), "
        "Member must not be null]",
    }
    six = [publish(stoker, f"words{number}", {"a": ""}) for number in range(6)]
    assert update(*six) == invalid("Cannot reference more than 5 layers.")
    elsewhere = first.replace(REGION, "eu-north-1")
    assert update(elsewhere) == invalid(
        f"Layers are not in the same region as the function. Layers are expected to be in region {REGION}."
    )
    assert "Layers" not in settled(stoker, "layer-words")


# --- what runs


def test_python_finds_layers_and_later_ones_win(stoker: RunningStoker) -> None:
    """More than one cold start, so that one is of a pool; then the layers' order changes."""
    source = (
        "import os, subprocess, only_one, only_two, packed, both\n"
        "def lambda_handler(event, context):\n"
        "    try:\n"
        "        open('/opt/written', 'w')\n"
        "    except OSError as refused:\n"
        "        written = refused.errno\n"
        "    tool = subprocess.run(['tool'], capture_output=True, text=True).stdout.strip()\n"
        "    return [both.FROM, packed.FROM, tool, os.path.realpath('/opt/link'), written,\n"
        "            sorted(os.listdir('/opt/shared')), open('/opt/shared/x').read()]\n"
    )
    one = publish(
        stoker,
        "one",
        {
            "python/only_one.py": "",
            "python/both.py": "FROM = 'one'",
            f"{SITE}/packed.py": "FROM = 'site'",
            "python/packed.py": "FROM = 'python'",
            "bin/tool": "#!/bin/sh\necho tool of one",
            "link/inside": "",
            "shared/x": "one",
            "shared/y": "",
        },
    )
    two = publish(
        stoker,
        "two",
        {
            "python/only_two.py": "",
            "python/both.py": "FROM = 'two'",
            "bin/tool": "#!/bin/sh\necho tool of two",
            "link": "a file over a folder",
            "shared/x": "two",
            "shared/z": "",
        },
    )
    shown = stoker.create_python("layered", source, Layers=[one, two])
    assert [layer["Arn"] for layer in shown["Layers"]] == [one, two]
    shared = ["x", "y", "z"]
    assert stoker.invoke("layered") == ["two", "site", "tool of two", "/opt/link", 30, shared, "two"]
    for layers, expected in (([two, one], "one"), ([one, two], "two")):
        stoker.client("lambda").update_function_configuration(FunctionName="layered", Layers=layers)
        settled(stoker, "layered")
        answered = stoker.invoke("layered")
        assert answered == [expected, "site", f"tool of {expected}", "/opt/link", 30, shared, expected]


def test_a_function_goes_on_with_a_layer_that_was_deleted(stoker: RunningStoker) -> None:
    layer = publish(stoker, "going", {"python/gone.py": "HERE = True"})
    stoker.create_python("keeps", "import gone\ndef lambda_handler(e, c): return gone.HERE\n", Layers=[layer])
    service = stoker.client("lambda")
    service.delete_layer_version(LayerName="going", VersionNumber=1)
    assert stoker.invoke("keeps") is True
    service.update_function_configuration(FunctionName="keeps", Timeout=9)
    settled(stoker, "keeps")
    assert stoker.invoke("keeps") is True


def test_functions_see_their_own_layers_alone(stoker: RunningStoker) -> None:
    source = (
        "import os\n"
        "def lambda_handler(event, context):\n"
        "    return sorted(f for _, _, files in os.walk('/opt') for f in files)\n"
    )
    layers = {name: publish(stoker, name, {name: "secret"}) for name in ("red", "green", "blue")}
    lists: dict[str, list[str]] = {
        "sees-red": ["red"],
        "sees-two": ["red", "green"],
        "sees-other-two": ["green", "blue"],
        "sees-none": [],
    }
    for name, names in lists.items():
        stoker.create_python(name, source, Layers=[layers[each] for each in names])
    for _ in range(2):
        for name, names in lists.items():
            assert stoker.invoke(name) == sorted(names)


def test_an_exec_wrapper_of_a_layer_and_extensions_that_are_not_started(stoker: RunningStoker) -> None:
    wrapper = '#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n'
    layer = publish(stoker, "wrapping", {"wrapper": wrapper, "extensions/agent": "#!/bin/sh\n"})
    stoker.create_python(
        "wrapped",
        "import os\ndef lambda_handler(event, context): return os.environ.get('WRAPPED')\n",
        Layers=[layer],
        Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}},
    )
    tail = logs_of(stoker, "wrapped")
    assert "EXTENSION\tName: agent\tState: LaunchError" in tail
    assert stoker.invoke("wrapped") == "yes"


@needs_node
def test_node_finds_modules_of_layers(stoker: RunningStoker) -> None:
    assert NODE is not None
    major = NODE.removeprefix("nodejs").removesuffix(".x")
    plain = publish(
        stoker,
        "node-plain",
        {
            "nodejs/node_modules/plain/index.js": "exports.from = 'plain'",
            "nodejs/node_modules/both/index.js": "exports.from = 'any'",
        },
    )
    special = publish(
        stoker, "node-special", {f"nodejs/node{major}/node_modules/both/index.js": "exports.from = 'special'"}
    )
    code = zip_of({"index.js": "exports.handler = async () => ['plain', 'both'].map(n => require(n).from)"})
    stoker.create("node-layered", code, Runtime=NODE, Handler="index.handler", Layers=[plain, special])
    assert stoker.invoke("node-layered") == ["plain", "special"]


def test_a_custom_runtime_as_a_layer(stoker: RunningStoker) -> None:
    bootstrap = (
        "#!/usr/bin/python3\n"
        "import http.client, os\n"
        "api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])\n"
        "while True:\n"
        "    api.request('GET', '/2018-06-01/runtime/invocation/next')\n"
        "    event = api.getresponse()\n"
        "    event.read()\n"
        "    id = event.headers['Lambda-Runtime-Aws-Request-Id']\n"
        "    answer = '\"' + open('/var/task/word').read() + '\"'\n"
        "    api.request('POST', f'/2018-06-01/runtime/invocation/{id}/response', answer)\n"
        "    api.getresponse().read()\n"
    )
    layer = publish(stoker, "runtime", {"bootstrap": bootstrap})
    stoker.create(
        "of-a-layer", zip_of({"word": "spoken"}), Runtime="provided.al2023", Handler="h", Layers=[layer]
    )
    assert stoker.invoke("of-a-layer") == "spoken"


def test_a_layers_archive_is_checked_as_code_is(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    for name in ("../outside", "/absolute", "a/../../b"):
        content = {"ZipFile": zip_of({name: "x"})}
        assert answer(service.publish_layer_version, LayerName="hostile", Content=content) == invalid(
            "Could not unzip uploaded file. Please check your file, then try to upload again."
        )
    assert service.list_layer_versions(LayerName="hostile")["LayerVersions"] == []
