"""CRC-32C (Castagnoli), which EROFS wants over its superblock. By table: a superblock is 4 KiB at most."""

_POLYNOMIAL = 0x82F63B78


def _entry(index: int) -> int:
    for _ in range(8):
        index = (index >> 1) ^ (_POLYNOMIAL if index & 1 else 0)
    return index


_TABLE = tuple(_entry(index) for index in range(256))


def crc32c(content: bytes, crc: int = 0xFFFFFFFF) -> int:
    """The running remainder, without the final inversion, as the kernel's function of that name."""
    table = _TABLE
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc
