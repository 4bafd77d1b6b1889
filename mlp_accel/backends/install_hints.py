"""Commands that differ from system to system."""

from __future__ import annotations

import os
import platform
from pathlib import Path

WITH_GPUS = "docker run --gpus all ... (on a machine where nvidia-smi shows the GPU)"
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def distribution() -> set[str]:
    """The Linux distribution and those that it is like, as in os-release: ``{"ubuntu", "debian"}``."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return set()
    return {release.get("ID", ""), *release.get("ID_LIKE", "").split()}


def in_container() -> bool:
    """Whether this process runs in a container of Docker or Podman."""
    return any(mark.exists() for mark in CONTAINER_MARKS)


def install_openmp() -> str:
    """The command that installs GNU's runtime of OpenMP."""
    systems = distribution()
    if systems & {"fedora", "rhel"}:
        return "sudo dnf install libgomp"
    if systems & {"suse", "opensuse"}:
        return "sudo zypper install libgomp1"
    return "sudo apt-get install libgomp1"


def install_driver() -> str:
    """The command that brings an NVIDIA driver within reach."""
    systems = distribution()
    if in_container():
        return WITH_GPUS
    if "ubuntu" in systems:
        return "sudo ubuntu-drivers install"
    if "debian" in systems:
        return "sudo apt-get install nvidia-driver"
    return "install the NVIDIA driver, then check it with nvidia-smi"


def show_device() -> str:
    """The command that makes a GPU visible to a process that has a driver."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return "unset CUDA_VISIBLE_DEVICES"
    return WITH_GPUS if in_container() else "nvidia-smi (it says why the driver finds no GPU)"
