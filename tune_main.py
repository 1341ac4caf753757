"""The command line of digit_search: `python tune_main.py --help`. Everything is in `digit_search/cli.py`."""

from digit_search.cli import run_as_program

if __name__ == "__main__":
    run_as_program()
