"""Package metadata. Build and tool settings (pytest, ruff) are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"


def read_version() -> str:
    """Reads the version as text: importing the package would need its dependencies at build time."""
    text = (HERE / "cl_complora" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('cl_complora/version.py has no line of the form __version__ = "X.Y.Z"')
    return match.group(1)


INSTALL_REQUIRES = [
    "torch>=2.6",
    "torchvision>=0.19",
    "open_clip_torch>=3",
    "avalanche-lib>=0.6,<0.7",
    # Avalanche asks for qpsolvers[open_source_solvers], used by its GEM strategy alone. Releases 2.0 to 2.3
    # have no extra of that name, so that no pip installs the 24 packages behind it: see docs/install.md.
    "qpsolvers>=2.3,<2.4",
    # GPUtil, which Avalanche imports, needs distutils, which from Python 3.12 on only setuptools provides.
    'setuptools; python_version >= "3.12"',
    "pydantic>=2.6,<3",
    "typer>=0.12",
    "rich>=13",
    "pyyaml>=6",
    "safetensors>=0.4",
    "numpy>=1.26",
    "scipy>=1.11",
    "psutil>=5.9",
    "scikit-learn>=1.3",
    "prodigyopt>=1.1,<2",
    "schedulefree>=1.4,<2",
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "tensorboard>=2.16",
    "pillow>=10",
]

EXTRAS_REQUIRE = {
    # pyarrow: one source is read by it, and a source that no test reads breaks unseen; mkdocs-material: so
    # does a site that no test builds.
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.7",
        "hypothesis>=6.100",
        "ruff>=0.6",
        "pyarrow>=15",
        "mkdocs-material>=9.5",
    ],
    "cluster": ["ray>=2.49"],  # compare --cluster
    # Tokenisers of SigLIP, SigLIP2 and others of open_clip's models (docs/models.md).
    "transformers": ["transformers>=4.40", "sentencepiece>=0.2"],
    "docs": ["mkdocs-material>=9.5"],  # make docs
    "wandb": ["wandb>=0.16"],  # --log
    "mlflow": ["mlflow-skinny>=2.10", "pillow>=10"],
    "trackio": ["trackio>=0.2"],
    "datasets": ["pyarrow>=15", "datasets>=4"],  # source: {kind: parquet} needs the former alone
    "heif": ["pillow-heif>=0.16"],  # photographs of telephones
    "pandas": ["pandas>=2"],  # to_frame() of runs and comparisons
    "bench": ["peft>=0.14"],  # a peer of the benchmarks, which go without it where it is missing
}

# strategies/ and scenarios/ stand at the top of the checkout, where people look for them, and become data
# packages in the wheel. They hold no Python, so find_packages does not see them.
# How the embedded world was pretrained and is drawn for the docs: nothing at run time needs it.
MAKING = "cl_complora.world.making"
DATA_PACKAGES = {"cl_complora.strategies": "strategies", "cl_complora.scenarios": "scenarios"}
YAML = ["*.yaml", "**/*.yaml"]

setup(
    name="cl_complora",
    version=read_version(),
    description="Continual few-shot learning of CLIP, with low-rank factors in the complement of its weights",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="cl_complora contributors",
    license="MIT",
    license_files=["LICENSE"],
    project_urls={"Paper of the method": "https://arxiv.org/abs/2501.15040"},
    keywords=[
        "continual learning",
        "few-shot learning",
        "CLIP",
        "open_clip",
        "Avalanche",
        "LoRA",
        "vision-language models",
        "catastrophic forgetting",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Framework :: Jupyter",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[*find_packages(include=["cl_complora", "cl_complora.*"], exclude=[MAKING]), *DATA_PACKAGES],
    package_dir=DATA_PACKAGES,
    package_data={
        "cl_complora": [
            *(f"world/assets/*.{suffix}" for suffix in ("safetensors", "json", "jsonl", "txt.gz", "md")),
            "report/templates/*",
            "py.typed",
            "engine/avalanche_defaults/*.json",
        ],
        **dict.fromkeys(DATA_PACKAGES, YAML),
    },
    include_package_data=False,  # package_data alone decides: MANIFEST.in is for the sdist
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["cl-complora = cl_complora.cli:main"]},
)
