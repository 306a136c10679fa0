"""The classic services of the internet in stream style: `python3 -m demos.classic`."""
