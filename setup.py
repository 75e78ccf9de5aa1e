"""Lists the wheel's packages: the root is `underdog`, and its folders are namespace packages below it.

setuptools cannot discover packages below a root that is itself mapped, so the list is made here.
"""

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

ROOMS = ("kernels", "verifiers", "rollouts", "rewards", "rl", "recipes")
INSIDE = [pattern for room in ROOMS for pattern in (room, f"{room}.*")]


class WithoutSetup(build_py):
    """This file stands in the package's own folder, but is not of the package."""

    def find_package_modules(self, package, package_dir):
        """All modules but `setup`."""
        return [found for found in super().find_package_modules(package, package_dir) if found[1] != "setup"]


setup(
    packages=["underdog", *(f"underdog.{name}" for name in find_namespace_packages(".", include=INSIDE))],
    package_data={"": ["*.yaml", "*.json", "*.html", "*.js", "*.css", "*.txt"]},
    cmdclass={"build_py": WithoutSetup},
)
