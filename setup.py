"""What pyproject.toml cannot say plainly: the top-level folder kernels/ is installed as minicnn.kernels."""

from setuptools import find_packages, setup

FOLDERS = ("reference", "cpu", "cpu/bf16", "cuda")
KERNELS = {"minicnn.kernels": "kernels"} | {f"minicnn.kernels.{folder.replace('/', '.')}": f"kernels/{folder}"
                                            for folder in FOLDERS}

setup(
    packages=find_packages(include=["minicnn", "minicnn.*"], exclude=["minicnn.kernels", "minicnn.kernels.*"])
    + list(KERNELS),
    package_dir=KERNELS,
    package_data={"minicnn.kernels": ["README.md"], "minicnn.kernels.cuda": ["*.cu", "*.cuh"],
                  "minicnn.explore": ["static/*"], "minicnn.report": ["templates/*", "words/*"],
                  "minicnn.pretrained": ["README.md", "*.safetensors", "samples/*"]},
)
