"""The one thing pyproject.toml cannot say plainly: the top-level folder kernels/ is installed as minicnn.kernels."""

from setuptools import find_packages, setup

KERNELS = {"minicnn.kernels": "kernels"}
KERNELS.update({f"minicnn.kernels.{name}": f"kernels/{name.replace('.', '/')}" for name in find_packages("kernels")})

setup(
    packages=find_packages(include=["minicnn", "minicnn.*"]) + list(KERNELS),
    package_dir=KERNELS,
    package_data={"minicnn.kernels": ["README.md", "cuda/*.cu", "cuda/*.cuh"]},
)
