"""A function's image as a worker runs it: mounted, with what is to be started of it. Decisions are pure."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from stoker.core.errors import LaunchRefused
from stoker.core.reserved_environment import RESERVED
from stoker.core.threads import CallThreads
from stoker.runtimes.catalog import InvalidEntrypoint, RuntimePlan
from stoker.sandbox.driver import SandboxUser
from stoker.services.functions import FunctionVersion, ImageOverrides, ImageUse
from stoker.services.images import ImageConfiguration, ImageMissing, ImageStore
from stoker.services.volumes import MountedTree
from stoker.worker.launching import CodeFolders, extensions_in

MOUNT_LOST = "IMAGE\tThe image can no longer be read: what served it ended. The sandbox is ended too.\n"

IMAGE = "image"
"""The runtime of the plan of an image."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where an image that says nothing has its programs; every container engine takes this."""

PLACES = ("dev", "tmp", "proc", "etc/resolv.conf", "etc/hosts", "etc/hostname")
"""Where the jail mounts something over an image; as native/jail/root.c has them."""

FIRST_READS_MAX = 16
"""Images that are looked at at one time, each in a thread that may wait for the store."""

_THREADS = CallThreads("stoker-image-roots", threads_max=FIRST_READS_MAX)
_ALWAYS = {"LAMBDA_TASK_ROOT": "/var/task", "LAMBDA_RUNTIME_DIR": "/var/runtime"}
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class MountedImage(msgspec.Struct, frozen=True, kw_only=True):
    """What a life needs of an image; ``leave`` is called once, at its end."""

    plan: RuntimePlan | InvalidEntrypoint
    folders: CodeFolders
    leave: Callable[[], None]


class LaunchFailure(msgspec.Struct, frozen=True):
    """A launch that failed, in AWS's words: error type, text, and the line for the log."""

    error_type: str
    text: str
    log_line: str


async def mounted_image(images: ImageStore, function: FunctionVersion, image: ImageUse) -> MountedImage:
    """The image of a function's version, mounted.

    Raises:
        ImageMissing, MountRefused: nothing has to be left.
    """
    account = function.key.account
    artifact = await images.artifact(account, image.digest)
    if artifact is None:
        raise ImageMissing(image.resolved_uri)
    tree = await images.mounted(account, image.digest)
    try:
        extensions = await _THREADS.call(partial(_looked_at, tree))
    except BaseException:
        images.leave(account, image.digest)
        raise
    configuration = artifact.configuration
    user = configuration.user
    folders = CodeFolders(
        root=tree,
        user=SandboxUser(user.uid, user.gid) if user is not None and user.uid else None,
        extensions=extensions,
    )
    return MountedImage(
        plan=image_plan(configuration, function.image_overrides or ImageOverrides()),
        folders=folders,
        leave=partial(images.leave, account, image.digest),
    )


def image_plan(
    configuration: ImageConfiguration, overrides: ImageOverrides
) -> RuntimePlan | InvalidEntrypoint:
    """How the image is started: ENTRYPOINT and CMD, each its own or the function's, one after the other."""
    entry_point = overrides.entry_point or configuration.entry_point
    command = overrides.command or configuration.command
    argv = (*entry_point, *command)
    if not argv:
        return InvalidEntrypoint("the image has neither ENTRYPOINT nor CMD")
    variables = {name: value for name, value in configuration.environment.items() if name not in RESERVED}
    return RuntimePlan(
        runtime=IMAGE,
        argv=argv,
        environment={"PATH": PATH, "TZ": ":UTC", **variables, **_ALWAYS},
        mounts={},
        working_directory=overrides.working_directory or configuration.working_directory or "/",
        handler=command[-1] if command else "",
        entry_points=len(entry_point),
    )


def image_launch_failure(plan: RuntimePlan, problem: LaunchRefused) -> LaunchFailure:
    """As AWS says that an image's program cannot be started, or not there (Go's words for it)."""
    why = os.strerror(problem.number).lower()
    program = plan.argv[0]
    if problem.misplaced:
        error_type, text = "Runtime.InvalidWorkingDir", f"chdir {plan.working_directory}: {why}"
    elif "/" in program:
        error_type, text = "Runtime.InvalidEntrypoint", f"fork/exec {program}: {why}"
    else:
        found = "executable file not found in $PATH" if problem.number == 2 else why
        error_type, text = "Runtime.InvalidEntrypoint", f'exec: "{program}": {found}'
    line = (
        f"IMAGE\tLaunch error: {text}\tEntrypoint: [{' '.join(plan.argv[: plan.entry_points])}]\t"
        f"Cmd: [{' '.join(plan.argv[plan.entry_points :])}]\tWorkingDir: [{plan.working_directory}]\n"
    )
    return LaunchFailure(error_type, text, line)


def _looked_at(tree: MountedTree) -> tuple[str, ...]:
    """Touch what a sandbox is put together from, and say which extensions there are.

    Whoever reads an image may wait for its chunks: neither the event loop, which fetches them, nor the jail,
    which makes one sandbox after the other, must be the first.
    """
    for place in PLACES:
        with suppress(OSError):
            os.stat(place, dir_fd=tree.folder, follow_symlinks=False)
    return _extensions_in(tree)


def _extensions_in(tree: MountedTree) -> tuple[str, ...]:
    """External extensions of an image; no link of it is followed here."""
    try:
        opt = os.open("opt", _FOLDER, dir_fd=tree.folder)
    except OSError:
        return ()
    try:
        return extensions_in(MountedTree(tree.mount_id, opt))
    finally:
        os.close(opt)
