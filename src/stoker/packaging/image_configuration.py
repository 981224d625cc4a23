"""What an image's configuration says about starting it. Pure; the text is a stranger's."""

import msgspec

from stoker.services.images import ImageConfiguration, ImageRefused, ImageUser

_TEXTS_MAX = 1500
"""Of an ENTRYPOINT or a CMD, as for a function's ImageConfig."""

_SIZE_MAX_BYTES = 96 * 1024
"""Of all that a process is started with: what the launch record of a sandbox has room for."""


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    working_dir: str | None = None
    user: str | None = None


class _Document(msgspec.Struct, frozen=True):
    config: _Config | None = None


def read_configuration(content: bytes) -> tuple[ImageConfiguration, str]:
    """How the image wants to be started, and the user that it names, not resolved yet.

    Raises:
        ImageRefused: ``invalid`` or ``too_big``.
    """
    try:
        config = msgspec.json.decode(content, type=_Document).config or _Config()
    except msgspec.DecodeError as problem:
        raise ImageRefused("invalid", f"the image's configuration cannot be read: {problem}") from problem
    entry_point, command, variables = config.entrypoint or (), config.cmd or (), config.env or ()
    texts = (*entry_point, *command, *variables, config.working_dir or "", config.user or "")
    if any("\0" in text for text in texts):
        raise ImageRefused("invalid", "the image's configuration has NUL characters")
    if len(entry_point) > _TEXTS_MAX or len(command) > _TEXTS_MAX:
        raise ImageRefused("too_big", f"ENTRYPOINT or CMD has more than {_TEXTS_MAX} words")
    if sum(len(text.encode("utf-8", "surrogatepass")) + 1 for text in texts) > _SIZE_MAX_BYTES:
        raise ImageRefused("too_big", f"the image's settings have more than {_SIZE_MAX_BYTES} bytes")
    return (
        ImageConfiguration(
            entry_point=entry_point,
            command=command,
            working_directory=config.working_dir or None,
            environment=dict(_pairs(variables)),
        ),
        config.user or "",
    )


def with_user(configuration: ImageConfiguration, uid: int, gid: int, home: str) -> ImageConfiguration:
    """The same once it is known who runs it; root runs as Lambda's own user."""
    if uid == 0:
        return configuration
    return msgspec.structs.replace(configuration, user=ImageUser(uid, gid, home))


def _pairs(variables: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [variable.partition("=") for variable in variables]
    return [(name, value) for name, separator, value in pairs if name and separator]
