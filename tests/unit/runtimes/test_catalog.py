"""What the catalogue says about identifiers, plans and missing interpreters."""

from pathlib import Path

import botocore.session
import pytest

from stoker.runtimes import InvalidEntrypoint, RuntimeCatalog, RuntimeUnavailable
from stoker.runtimes.identifiers import RUNTIMES

RECORDED_AVAILABLE = [
    "nodejs20.x",
    "python3.14",
    "provided.al2023",
    "python3.12",
    "python3.13",
    "nodejs24.x",
    "nodejs22.x",
    "java25",
    "python3.10",
    "python3.11",
    "java21",
    "ruby3.3",
    "ruby3.4",
    "ruby3.2",
    "python3.8",
    "python3.9",
    "java17",
    "nodejs16.x",
    "dotnet10",
    "dotnet8",
    "java11",
    "dotnet6",
    "nodejs18.x",
    "provided.al2",
    "java8.al2",
]


def fake_program(path: Path, version: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)


def test_every_identifier_of_the_api_model_is_known():
    model = botocore.session.get_session().get_service_model("lambda")
    assert set(model.shape_for("Runtime").enum) - {"custom"} == set(RUNTIMES)


def test_what_aws_offers_is_not_deprecated():
    assert [name for name in RECORDED_AVAILABLE if RUNTIMES[name].deprecated] == []
    assert RUNTIMES["provided"].deprecated
    assert RUNTIMES["nodejs4.3-edge"].family == "nodejs"
    assert RUNTIMES["dotnetcore3.1"].family == "dotnet"


def test_interpreter_of_the_lang_folder_is_mounted(tmp_path):
    fake_program(tmp_path / "nodejs24.x" / "node_modules" / "node" / "bin" / "node", "v24.1.0")
    plan = RuntimeCatalog(tmp_path).plan("nodejs24.x")
    assert plan.argv == ("/var/lang/node_modules/node/bin/node", "/var/runtime/bootstrap.cjs")
    assert plan.mounts["/var/lang"] == tmp_path / "nodejs24.x"
    assert (plan.mounts["/var/runtime"] / "bootstrap.cjs").is_file()
    assert plan.environment["AWS_EXECUTION_ENV"] == "AWS_Lambda_nodejs24.x"
    assert plan.environment["NODE_PATH"].startswith(
        "/opt/nodejs/node24/node_modules:/opt/nodejs/node_modules:"
    )


def test_heap_of_node_follows_the_memory(tmp_path):
    fake_program(tmp_path / "nodejs24.x" / "bin" / "node", "v24.1.0")
    argv = RuntimeCatalog(tmp_path).plan("nodejs24.x", memory_mb=1000).argv
    assert argv == ("/var/lang/bin/node", "--max-old-space-size=900", "/var/runtime/bootstrap.cjs")


def test_program_of_another_version_does_not_count(tmp_path):
    fake_program(tmp_path / "nodejs24.x" / "bin" / "node", "v18.0.0")
    with pytest.raises(RuntimeUnavailable, match=r"needs Node\.js 24.*npm install --prefix .* node@24"):
        RuntimeCatalog(tmp_path).plan("nodejs24.x")


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("python3.8", r"needs Python 3\.8.*apt install python3\.8.*stoker doctor"),
        ("ruby3.4", r"no built-in ruby3\.4 runtime yet"),
        ("cobol85", "not a runtime of AWS Lambda"),
    ],
)
def test_unavailable_says_how_to_get_it(runtime, message):
    with pytest.raises(RuntimeUnavailable, match=message):
        RuntimeCatalog().plan(runtime)


def test_exec_wrapper_runs_before_the_interpreter(tmp_path):
    fake_program(tmp_path / "nodejs24.x" / "bin" / "node", "v24.1.0")
    argv = RuntimeCatalog(tmp_path).plan("nodejs24.x", exec_wrapper="/opt/wrap").argv
    assert argv[:2] == ("/bin/sh", "-c")
    assert argv[4:] == ("/opt/wrap", "/var/lang/bin/node", "/var/runtime/bootstrap.cjs")


def test_provided_takes_the_bootstrap_of_the_task_then_of_a_layer(tmp_path):
    task, opt = tmp_path / "task", tmp_path / "opt"
    task.mkdir()
    fake_program(opt / "bootstrap", "")
    plan = RuntimeCatalog().plan("provided.al2023", task=task, opt=opt, exec_wrapper="/ignored")
    assert plan.argv == ("/opt/bootstrap",)
    assert "AWS_EXECUTION_ENV" not in plan.environment
    (task / "bootstrap").symlink_to("/nowhere")
    assert RuntimeCatalog().plan("provided.al2", task=task, opt=opt).argv == ("/var/task/bootstrap",)


def test_provided_without_a_bootstrap_is_refused_in_aws_words(tmp_path):
    text = r"^Couldn't find valid bootstrap\(s\): \[/var/task/bootstrap /opt/bootstrap\]$"
    with pytest.raises(InvalidEntrypoint, match=text):
        RuntimeCatalog().plan("provided.al2023", task=tmp_path, opt=tmp_path)
    (tmp_path / "bootstrap").write_text("")
    with pytest.raises(InvalidEntrypoint, match=r"^fork/exec /var/task/bootstrap: permission denied$"):
        RuntimeCatalog().plan("provided.al2023", task=tmp_path)
