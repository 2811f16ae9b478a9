"""File systems of a test's own, as far as this machine lets it mount any."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests import fuse
from tests.children import in_a_child

# The file as which a test finds its directory without any mount.
AS_IT_IS: Final = "as it is"
_IMAGES: Final = ("ext4", "xfs", "btrfs")
# The least that mkfs takes for any of these.
_IMAGE_BYTES: Final = 320 * 2**20
MS_REC, MS_PRIVATE = 0x4000, 1 << 18


def mountable() -> list[str]:
    """The kinds of file systems that `on` can make here, beside that of the tests themselves."""
    if os.geteuid() != 0 or not _may_mount():
        return []
    images = [kind for kind in _IMAGES if shutil.which(f"mkfs.{kind}") and _is_known(kind)]
    loops = images if os.path.exists("/dev/loop-control") else []
    return ["tmpfs", *(["overlay"] if _is_known("overlay") else []), *loops]


def served() -> list[str]:
    """Return the kinds that `on` can make here, and that hold no ring since a process serves it."""
    known = fuse.DEVICE.exists() and _is_known("fuse")
    return [fuse.KIND] if os.geteuid() == 0 and known and _may_mount() else []


def on(kind: str, place: Path, body: Callable[[Path], None]) -> None:
    """Call `body` in a forked child with a directory on a file system of that kind.

    The mounts are the child's own, and go with it.
    """

    def in_child() -> None:
        if kind == AS_IT_IS:
            body(place)
            return
        _take_own_mounts()
        body(_mounted(kind, place))

    in_a_child(in_child)


def mount(*arguments: str) -> None:
    """Mount, in a namespace of this process's own."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _mounted(kind: str, place: Path) -> Path:
    target = place / "mounted"
    target.mkdir()
    if kind == "tmpfs":
        mount("-t", "tmpfs", "-o", "size=24m,mode=700", "none", str(target))
    elif kind == fuse.KIND:
        fuse.mount_served(target)
        return target
    elif kind == "overlay":
        # Upper and lower on a tmpfs: an overlay cannot lie on another one, as in containers.
        mount("-t", "tmpfs", "-o", "size=64m", "none", str(place))
        for name in ("lower", "upper", "work", "mounted"):
            (place / name).mkdir(mode=0o700)
        layers = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        mount("-t", "overlay", "-o", layers, "none", str(target))
    else:
        image = place / "image"
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
        mount("-o", "loop", str(image), str(target))
    target.chmod(0o700)
    return target


def _take_own_mounts() -> None:
    os.unshare(os.CLONE_NEWNS)
    mount("--make-rprivate", "/")


def take_own_processes() -> None:
    """Take namespaces as a container has them, for what this process starts."""
    _take_own_mounts()
    os.unshare(os.CLONE_NEWPID | os.CLONE_NEWIPC)


def _may_mount() -> bool:
    try:
        in_a_child(_take_own_mounts)
    except AssertionError:
        return False
    return True


def _is_known(kind: str) -> bool:
    known = Path("/proc/filesystems").read_text().splitlines()
    return any(line.split()[-1] == kind for line in known)
