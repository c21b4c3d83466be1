"""Package metadata; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent
NATIVE = "tvm_cdmpp/extract/native"
# The bundled TVM and the CUDA runtime it is linked against exist for Linux on x86-64 only.
LINUX = '; platform_system == "Linux" and platform_machine == "x86_64"'
ELSEWHERE = '; platform_system != "Linux" or platform_machine != "x86_64"'
# TVM's own cost model. On Linux the package xgboost brings 0.7 GB of GPU libraries along;
# xgboost-cpu is the same module without them.
XGBOOST = [f"xgboost-cpu>=2.0{LINUX}", f"xgboost>=2.0{ELSEWHERE}"]

setup(
    name="tvm-cdmpp",
    version="0.1.0",
    description="The CDMPP predictor as cost model for TVM's auto-scheduler",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tvm_cdmpp", "tvm_cdmpp.*"]),
    package_data={
        "tvm_cdmpp": [
            "py.typed",
            "data/*.json",
            "devices/*.json",
            "models/weights/*.safetensors",
            "extract/native/*.h",
            "extract/native/*.cpp",
        ]
    },
    ext_modules=[
        # Loaded through ctypes: plain C++, so that Python's headers are not needed.
        Extension(
            "tvm_cdmpp.extract.native._native",
            sources=[f"{NATIVE}/native.cpp"],
            depends=[str(path.relative_to(HERE)) for path in (HERE / NATIVE).glob("*.h")],
            language="c++",
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden"],
            # A machine without a compiler can still use everything but extraction.
            optional=True,
        )
    ],
    python_requires=">=3.10,<3.13",
    install_requires=[
        "filelock>=3.15",
        "matplotlib>=3.7",
        "numpy>=1.24",
        "orjson>=3.9",
        "platformdirs>=4",
        "pyarrow>=16",
        "rich>=13",
        "safetensors>=0.4",
        "scipy>=1.10",
        "torch>=2.4",
    ],
    extras_require={
        "tvm": [
            f"tilelang==0.1.0{LINUX}",
            f"nvidia-cuda-nvrtc-cu12{LINUX}",
            f"nvidia-cuda-runtime-cu12{LINUX}",
            # What TVM imports; pytest is for tvm.relay.testing, which holds its networks.
            "attrs",
            "cloudpickle",
            "decorator",
            "ml_dtypes",
            "psutil",
            "pytest",
            'setuptools; python_version >= "3.12"',  # brings distutils back
            "tornado",
            "typing_extensions",
            *XGBOOST,
        ],
        "xgboost": XGBOOST,
        "onnx": ["onnx"],
        "autotune": ["optuna>=4"],
        "test": ["hypothesis", "mypy", "onnx", "optuna>=4", "pytest", "pytest-xdist", "ruff"],
    },
    entry_points={"console_scripts": ["tvm-cdmpp = tvm_cdmpp.cli.main:main"]},
)
