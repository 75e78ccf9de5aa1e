"""Lists the wheel's packages: the root is `underdog`, and its folders are namespace packages below it.

setuptools cannot discover packages below a root that is itself mapped, so the list is made here.
"""

from setuptools import find_namespace_packages, setup

ROOMS = ("kernels", "verifiers", "rollouts", "rewards", "rl", "recipes")
INSIDE = [pattern for room in ROOMS for pattern in (room, f"{room}.*")]

setup(
    packages=["underdog", *(f"underdog.{name}" for name in find_namespace_packages(".", include=INSIDE))],
    package_data={"": ["*.yaml", "*.json", "*.html", "*.js", "*.css", "*.jinja"]},
)
