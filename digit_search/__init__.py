"""A distributed hyperparameter search for handwritten digits: Ray Tune, Optuna and ASHA around an adapted ResNet18."""

__version__ = "0.2.0"
