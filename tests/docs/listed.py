"""The commands on the pages that test_commands.py does not run, and why."""

# Pages whose commands run in a clone of their own, in order.
RUN = (
    "docs/tutorial.md",
    "docs/explanation/the-lock.md",
    "docs/how-to/change-the-code.md",
    "docs/how-to/keep-an-experiment.md",
    "docs/how-to/own-stage.md",
    "docs/how-to/run-experiments.md",
    "docs/how-to/share-data.md",
    "docs/reference/classes.md",
    "docs/reference/commands.md",
    "docs/reference/sources.md",
    "recipes/README.md",
)
TEAM = "docs/how-to/team.md"  # test_team.py runs its commands, with servers

# What stands for a name of the reader's own.
NAMES = {"NAME": "faster"}

NOT_RUN = {
    "git clone <this repository> my-project && cd my-project": "each test begins with a clone",
    "make setup": "fills .venv with 6 GB; tests run in one",
    "make setup && source .venv/bin/activate": "fills .venv with 6 GB; tests run in one",
    "source .venv/bin/activate": "tests run in an environment",
    "make test": "this is it",
    "make new NAME=clothes": "tests/pipeline/test_new.py makes projects by it, with other names",
    "make upgrade": "tests/pipeline/test_new.py upgrades projects by it, from a folder",
    "make test-slow": "this is it",
    "make lint": "looks at this very tree; .ci/run begins with it",
    "make lint test": "looks at this very tree; .ci/run begins with it",
    ".ci/run": "runs the tests",
    "make docs": "needs packages that tests do not; .ci/run builds the pages",
    "make lock": "asks a package index",
    "make lock UPGRADE=1": "asks a package index",
    "export MLFLOW_TRACKING_URI=http://mlflow.example.org:5000": "there is no such server",
    "export MLFLOW_TRACKING_URI=sqlite:///mlflow.db": "sets what the test of serving sets",
    "mkdir -p data/raw/fashion-mnist && cp .../*-ubyte.gz data/raw/fashion-mnist/": "no data here",
    'dvc add data/raw/fashion-mnist && git add data/raw && git commit -m "Fashion-MNIST"': (
        "no data here; test_torchvision.py reads files of this kind"
    ),
    "dvc exp run $(python -m src.recipe fashion_mnist)": "needs Fashion-MNIST and an hour",
    "sudo apt-get install -y postgresql": "test_team.py needs it, and says so",
    "uv pip install 'psycopg[binary]'": "test_team.py needs it, and says so",
    "uv pip install dvc-s3": "test_team.py needs it, and says so",
    "python -m pytest tests/yours": "these tests are part of this suite",
}

PROVEN_BY = {
    "tests/docs/test_commands.py::test_a_model_in_the_registry_is_served": (
        "mlflow models serve -m models:/clothes@champion --env-manager local --port 5001",
        """(printf '{"dataframe_split": {"columns": ["image"], "data": [["'; """
        """base64 < photo.jpg | tr -d '\\n'; printf '"]]}}') |\n"""
        """    curl -s http://127.0.0.1:5001/invocations """
        """-H 'Content-Type: application/json' -d @-""",
    ),
    "tests/model/test_predict.py::test_predictions_are_those_of_evaluate": (
        "python -m src.predict photo.jpg",
    ),
    "tests/model/test_weights.py::test_weights_come_from_the_hub_once": (
        "python -m src.weights resnet18",
    ),
    "tests/pipeline/test_compare.py::test_the_way_of_the_pages_from_a_question_to_a_branch": (
        "python -m src.seeds 5",
        "python -m src.lr_find",
        "dvc exp run --temp --name faster -S lr=0.003",
        "python -m src.compare HEAD faster",
        "python -m src.seeds 5 -S lr=0.003",
        'python -m src.compare HEAD lr=0.003 --log "a first look at a higher rate"',
        "python -m src.compare HEAD lr=0.003 --final",
        "dvc exp branch faster higher-rate",
        "git stash && git switch higher-rate && dvc checkout && git stash pop",
        'git commit --message "A higher rate: what came out" docs/experiments.md',
        "git push --set-upstream origin higher-rate",
        "dvc exp push origin faster",
        "python -m src.compare main higher-rate --markdown",
    ),
    "tests/pipeline/test_experiments.py::test_mlflow_run_does_what_exp_run_does": (
        "mlflow run . --env-manager local -P lr=3e-3",
    ),
    "tests/pipeline/test_recipes.py::test_a_recipe_gives_the_same_bytes_again": (
        "dvc exp run -S augment_own=true",
        "dvc exp run -S best_by=val/balanced_accuracy",
        "dvc exp run -S prepare.source=own",
        "dvc exp run -S loss=own",
        "dvc exp run -S model=own",
    ),
    "tests/pipeline/test_search.py::test_a_search_that_is_interrupted_and_then_killed_goes_on": (
        "python -m src.search 20",
        "python -m src.search 20 --workers 2",
        "dvc queue start -j 2",
    ),
    "tests/pipeline/test_verify.py::test_the_run_of_an_experiment_is_reproduced_to_the_bit": (
        "python -m src.verify",
        "python -m src.verify faster",
    ),
    "tests/pipeline/test_yours.py::test_own_parts_work_like_built_in_ones": (
        "dvc exp run -S yours.poly_epsilon=2 -S loss=own",
    ),
    "tests/tracking/test_serving.py::test_mlflow_serves_the_model_of_a_run": (
        "mlflow models serve -m runs:/RUN_ID/model --env-manager local --port 5001",
    ),
    "tests/tracking/test_ui.py::test_serves_runs_and_artifacts_and_leaves_nothing": (
        "make ui",
        "python -m src.ui",
    ),
}
LISTED = {*NOT_RUN, *(command for listed in PROVEN_BY.values() for command in listed)}
