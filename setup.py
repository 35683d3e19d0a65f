"""What pyproject.toml cannot say plainly: the top-level folder kernels/ is installed as minicnn.kernels."""

from setuptools import find_packages, setup

KERNELS = {"minicnn.kernels": "kernels"} | {f"minicnn.kernels.{backend}": f"kernels/{backend}"
                                            for backend in ("reference", "cpu", "cuda")}

setup(
    packages=find_packages(include=["minicnn", "minicnn.*"], exclude=["minicnn.kernels", "minicnn.kernels.*"])
    + list(KERNELS),
    package_dir=KERNELS,
    package_data={"minicnn.kernels": ["README.md"], "minicnn.kernels.cuda": ["*.cu", "*.cuh"],
                  "minicnn.explore": ["static/*"], "minicnn.report": ["templates/*", "words/*"],
                  "minicnn.pretrained": ["README.md", "*.safetensors", "samples/*"]},
)
